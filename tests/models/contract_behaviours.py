"""What Trainer, peft, accelerate and torch.export count on, of every model and head: a base of `ModelBehaviours`."""

import functools
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import accelerate
import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import output_capturing
from transformers.utils.generic import can_return_loss, find_labels

Batch = dict[str, Any]


@dataclass
class Head:
    """A task model to be tried.

    Attributes:
        kind: its class.
        case: the case of the method's kit.
        fields: further fields of the configuration.
        labels: of four samples; None where the batch holds them under other names.
        batch: four samples; None is the kit's batch.
    """

    kind: Any
    case: str
    fields: dict[str, Any]
    labels: torch.Tensor | None
    batch: Batch | None = None

    @property
    def name(self) -> str:
        kind = "" if self.labels is None else str(self.labels.dtype).removeprefix("torch.")
        return f"{self.kind.__name__}-{self.fields.get('num_labels', '')}-{kind}"


def rows_of(batch: Any, rows: slice) -> Any:
    if isinstance(batch, dict):
        return {name: rows_of(value, rows) for name, value in batch.items()}
    return batch[rows]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: values.grad for name, values in model.named_parameters() if values.grad is not None}


def accumulate(model: Any, parts: list[Batch]) -> dict[str, torch.Tensor]:
    """The gradient of one step of a plain Trainer on accumulated batches: it counts labels, or divides by the batches."""
    accepts = getattr(model, "accepts_loss_kwargs", True)
    is_counted = accepts and "labels" in parts[0]
    count = {"num_items_in_batch": sum(part["labels"].ne(-100).sum() for part in parts)} if is_counted else {}
    model.zero_grad()
    for part in parts:
        loss = model(**part, **count).loss
        (loss if is_counted else loss / len(parts)).backward()
    return gradients(model)


class ContractBehaviours(ABC):
    """`kit`, `shapes` and `encoder` are those of `ModelBehaviours`; `heads` names the task models."""

    kit: ModuleType
    shapes: list[str]

    @abstractmethod
    def encoder(self, case: str, **changes: Any) -> Any:
        """The encoder of a case."""

    @abstractmethod
    def for_encoder(self, batch: Batch) -> Batch:
        """The part of a pre-training batch that the encoder reads."""

    @abstractmethod
    def heads(self) -> list[Head]:
        """Every task model of the method."""

    def built(self, head: Head, **fields: Any) -> tuple[Any, Batch]:
        """A head without dropout, and four samples with labels."""
        torch.manual_seed(0)
        model = head.kind(self.kit.small_config(head.case, **(head.fields | fields))).eval()
        batch = self.for_encoder(self.kit.make_batch(head.case)) if head.batch is None else head.batch
        return model, dict(batch) if head.labels is None else batch | {"labels": head.labels}

    def all_models(self, shape: str) -> list[tuple[Any, Batch]]:
        """Pre-training model, encoder and heads, each in evaluation mode with a batch."""
        batch = self.kit.make_batch(shape)
        models = [
            (functools.partial(self.kit.small_model, shape), batch | self.kit.make_draws(shape)),
            (functools.partial(self.encoder, shape), self.for_encoder(batch)),
        ]
        return [(build().eval(), given) for build, given in models]

    # Trainer

    def test_accumulated_batches_make_the_step_of_one(self) -> None:
        for head in self.heads():
            model, batch = self.built(head)
            model.zero_grad()
            model(**batch).loss.backward()
            expected = gradients(model)
            torch.testing.assert_close(accumulate(model, [batch]), expected, rtol=0, atol=0, msg=head.name)
            is_counted = getattr(model, "accepts_loss_kwargs", True)
            # Where labels are not counted, it is batches of one size that have the mean of all of them.
            cuts = [slice(0, 3), slice(3, 4)] if is_counted else [slice(0, 2), slice(2, 4)]
            found = accumulate(model, [rows_of(batch, cut) for cut in cuts])
            if head.kind.__name__ == "MultiMAEForDepthEstimation":  # its threshold is the largest error of a batch
                assert not is_counted
            else:
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    def test_a_real_value_of_minus_100_is_one(self) -> None:
        """Trainer takes it for a label that is left out, and counts none here."""
        for head in self.heads():
            if head.labels is not None and head.labels.shape == (4,) and head.labels.is_floating_point():
                model, batch = self.built(head)
                batch["labels"] = torch.full((4,), -100.0)
                counted = model(**batch, num_items_in_batch=torch.tensor(0)).loss
                torch.testing.assert_close(counted, model(**batch).loss)

    def test_trainer_knows_that_pretraining_gives_a_loss(self) -> None:
        shape = self.shapes[0]
        model, inputs = self.all_models(shape)[0]
        assert not model.accepts_loss_kwargs
        if find_labels(type(model)):
            assert "labels" in inputs
            return
        assert can_return_loss(type(model))
        outputs = model(**inputs, return_loss=False)
        assert outputs.loss is None and outputs.loss_parts is None
        torch.testing.assert_close(model(**inputs, return_loss=True).loss, model(**inputs).loss)

    # peft

    def test_wrappers_may_pass_on_arguments_of_other_models(self, shape: str) -> None:
        """As peft's FEATURE_EXTRACTION, SEQ_CLS and TOKEN_CLS wrappers do, whatever the model is."""
        every = dict.fromkeys(
            ["input_ids", "attention_mask", "inputs_embeds", "output_attentions", "output_hidden_states"]
        )
        pairs = self.all_models(shape)
        if shape == self.shapes[0]:
            pairs += [self.built(head) for head in self.heads()]
        for model, batch in pairs:
            if "Pretraining" in type(model).__name__ and not find_labels(type(model)):
                continue  # has draws of its own
            expected, found = model(**batch), model(**every | {"return_dict": None} | batch)
            for name in ("loss", "pooler_output", "logits"):
                if name in expected:
                    assert torch.equal(found[name], expected[name]), (type(model), name)

    # Weights that wait elsewhere

    def test_weights_may_wait_elsewhere(self, shape: str, tmp_path: Path) -> None:
        """Offloaded weights arrive when their module's forward begins: none may be read before."""
        pairs = self.all_models(shape)
        if shape == self.shapes[0]:
            pairs += [self.built(head) for head in self.heads()]
        for number, (model, batch) in enumerate(pairs):
            expected = model(**batch)
            if number == 1:
                accelerate.disk_offload(model, str(tmp_path), torch.device("cpu"))
            else:
                accelerate.cpu_offload(model, torch.device("cpu"), offload_buffers=number == 0)
            assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
            found = model(**batch)
            for name in ("loss", "pooler_output", "logits", "mask", "query_mask"):
                if name in expected:
                    torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("share", [0.5, 0.0])
    def test_a_device_map_may_leave_weights_on_the_disk(self, share: float, tmp_path: Path) -> None:
        """Here whole modules are placed, and what is given to them is moved to the device."""
        for model, batch in self.all_models(self.shapes[-1]):
            expected = model(**batch)
            model.save_pretrained(tmp_path)
            memory = {"cpu": max(1, int(share * model.get_memory_footprint()))}
            settings = {"device_map": "auto", "max_memory": memory, "offload_folder": str(tmp_path / "disk")}
            try:
                placed = type(model).from_pretrained(tmp_path, **settings).eval()
            except ValueError as error:  # before accelerate 1.15, where no module fits into the memory
                assert "offload the whole model to the disk" in str(error)
                continue
            assert "meta" in {parameter.device.type for parameter in placed.parameters()}
            found = placed(**batch)
            name = "loss" if "loss" in expected else "pooler_output"
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)

    # Export

    @pytest.mark.slow
    def test_the_batch_size_of_an_exported_model_is_free(self) -> None:
        for shape in self.shapes:
            check_export(self.encoder(shape), self.for_encoder(self.kit.make_batch(shape)), "pooler_output")
        for head in self.heads():
            model, batch = self.built(head)
            given = {
                name: value
                for name, value in batch.items()
                if name not in ("labels", "start_positions", "end_positions")
            }
            outputs = {
                "MultiMAEForDepthEstimation": "predicted_depth",
                "MultiMAEForDenseRegression": "reconstruction",
                "PoSMinimaxBertForQuestionAnswering": "start_logits",
            }
            check_export(model, given, outputs.get(head.kind.__name__, "logits"))

    @pytest.mark.slow
    def test_the_batch_size_in_onnx_is_free(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        runtime = pytest.importorskip("onnxruntime")
        shape = self.shapes[-1]
        model, batch = self.encoder(shape), self.for_encoder(self.kit.make_batch(shape))
        file = str(tmp_path / "encoder.onnx")
        torch.onnx.export(model, (), file, kwargs=batch, dynamo=True, dynamic_shapes=free_batch(batch), verbose=False)
        more = larger(batch)
        session = runtime.InferenceSession(file)
        names = [each.name for each in session.get_inputs()]
        leaves = torch.utils._pytree.tree_leaves(more)
        found = session.run(None, dict(zip(names, [leaf.numpy() for leaf in leaves], strict=True)))
        expected = model(**more)
        torch.testing.assert_close(torch.from_numpy(found[0]), expected.last_hidden_state, rtol=1e-4, atol=1e-4)

    # Promises of the classes

    @pytest.mark.slow
    def test_a_model_is_one_graph_where_its_class_says_so(self) -> None:
        """Where a class does not say so, one of its models at least is none."""
        pairs = [pair for shape in self.shapes for pair in self.all_models(shape)] + [
            self.built(head) for head in self.heads()
        ]
        broken: dict[type, bool] = {}
        for model, batch in pairs:
            torch._dynamo.reset()
            compiled = torch.compile(model.train(), fullgraph=True, backend="eager")
            if model._can_compile_fullgraph:
                compiled(**batch)
                continue
            broken.setdefault(type(model), False)
            try:
                compiled(**batch)
            except torch._dynamo.exc.TorchDynamoException:
                broken[type(model)] = True
        assert all(broken.values()), broken

    def test_checkpointing_of_the_configuration_reaches_every_layer(self) -> None:
        shape = self.shapes[0]
        builds = [functools.partial(self.kit.small_model, shape), functools.partial(self.encoder, shape)]
        models = [build(gradient_checkpointing=True) for build in builds]
        models += [self.built(head, gradient_checkpointing=True)[0] for head in self.heads()]
        for model in models:
            layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
            assert layers and all(layer.gradient_checkpointing for layer in layers), type(model)

    @pytest.mark.skipif(
        not hasattr(output_capturing, "selected_hidden_states"),
        reason="transformers 5.20 chooses none in its own models",
    )
    def test_numbers_of_hidden_states_choose_them(self) -> None:
        pairs = [self.all_models(self.shapes[0])[1], *(self.built(head) for head in self.heads())]
        for model, batch in pairs:
            whole = model(**batch, output_hidden_states=True).hidden_states
            found = model(**batch, output_hidden_states=[1, -1]).hidden_states
            assert [state is not None for state in found] == [
                number in (1, len(whole) - 1) for number in range(len(whole))
            ]
            assert torch.equal(found[1], whole[1])
            assert model(**batch).hidden_states is None

    def test_the_class_names_an_argument_of_its_forward(self) -> None:
        models = [self.all_models(self.shapes[0])[1][0], *(self.built(head)[0] for head in self.heads())]
        for model in models:
            assert type(model).main_input_name in inspect.signature(type(model).forward).parameters
            assert model.main_input_name in inspect.signature(model.forward).parameters


def larger(batch: Any) -> Any:
    """A batch with its first sample once more at the end."""
    if isinstance(batch, dict):
        return {name: larger(value) for name, value in batch.items()}
    return torch.cat([batch, batch[:1]])


def free_batch(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: free_batch(value) for name, value in batch.items()}
    return {0: torch.export.Dim("batch", min=2, max=64)}


def check_export(model: Any, batch: Batch, name: str) -> None:
    """An exported program takes another number of samples, and gives what the model gives."""
    program = torch.export.export(model, (), batch, dynamic_shapes=free_batch(batch), strict=False)
    more = larger(batch)
    torch.testing.assert_close(program.module()(**more)[name], model(**more)[name], rtol=1e-4, atol=1e-5)
