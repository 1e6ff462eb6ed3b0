"""What the models of every method do: a method's test class derives from `ModelBehaviours` and names its cases.

A method's *kit* is its module of cases in this folder: `small_config(case)`, `small_model(case)`, `make_batch(case)`,
`make_draws(case)`, with the same arguments in all of them.
"""

import collections
import functools
import json
import math
import sys
import traceback
from abc import abstractmethod
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from contract_behaviours import ContractBehaviours, Head
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, PreTrainedConfig, masking_utils

from hf_maskssl.models.layers import enable_checkpointing
from hf_maskssl.models.task_balancing import TaskPretraining

Batch = dict[str, Any]
# What is refused: its case, what is given, and what the message says.
Refusals = list[tuple[str, dict[str, Any], str]]


def step(model: Any, inputs: Batch) -> dict[str, torch.Tensor]:
    """The loss, and every gradient that there is."""
    loss = model(**inputs).loss
    loss.backward()
    gradients = {name: values.grad for name, values in model.named_parameters() if values.grad is not None}
    return {"loss": loss.detach(), **gradients}


def opened(auto_class: Any, folder: Path, kind: Any, **fields: Any) -> Any:
    """The whole model of `kind` in a folder: nothing of it is missing, and nothing is left over."""
    model, info = auto_class.from_pretrained(folder, output_loading_info=True, **fields)
    assert type(model) is kind
    assert not any(info.values()), info
    return model


def same_fields(first: PreTrainedConfig, second: PreTrainedConfig) -> bool:
    """But for where they were read from and by what."""
    unlike = {"_name_or_path": None, "transformers_version": None, "architectures": None, "dtype": None}
    return first.to_dict() | unlike == second.to_dict() | unlike


def in_dtype(batch: Any, dtype: torch.dtype) -> Any:
    if isinstance(batch, dict):
        return {name: in_dtype(value, dtype) for name, value in batch.items()}
    return batch.to(dtype) if batch.is_floating_point() else batch


def central_difference(model: Any, inputs: Batch, direction: list[torch.Tensor]) -> torch.Tensor:
    """Slope of the loss along `direction` by the four-point rule, whose error is of the fourth order in the step."""
    step_size = 1e-4  # larger ones cross kinks, as of a ReLU
    norm = math.sqrt(sum(along.pow(2).sum().item() for along in direction))
    start = [parameter.detach().clone() for parameter in model.parameters()]
    losses = {}
    with torch.no_grad():
        for times in (-2, -1, 1, 2):
            for parameter, origin, along in zip(model.parameters(), start, direction, strict=True):
                parameter.copy_(origin + times * step_size / norm * along)
            losses[times] = model(**inputs).loss
        for parameter, origin in zip(model.parameters(), start, strict=True):
            parameter.copy_(origin)
    return norm * (8 * (losses[1] - losses[-1]) - (losses[2] - losses[-2])) / (12 * step_size)


def check_slopes(model: Any, inputs: Batch) -> None:
    """The gradients that `model` holds, of `inputs`, against finite differences along three directions of all weights."""
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
        slope = sum((p.grad * along).sum() for p, along in zip(parameters, direction, strict=True))
        assert slope.abs() > 1e-6  # a gradient of zero would pass any comparison
        torch.testing.assert_close(slope, central_difference(model, inputs, direction), rtol=1e-6, atol=1e-8)


class Looks(TorchDispatchMode):
    """Counts operations whose result, or its shape, the CPU needs to see; indices of bool are such.

    Of a given model and batch it also counts, as "from the host", reads of tensors that no operation made: on a GPU the copy of a
    list of numbers waits for all that is queued, and a CUDA graph refuses it. Scalars travel with their kernel.
    """

    LOOKING = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "_unique2",
        "unique_dim",
        "bincount",
    )

    def __init__(self, model: torch.nn.Module | None = None, batch: Batch | None = None) -> None:
        super().__init__()
        self.found: dict[str, int] = collections.Counter()
        self.places: list[str] = []
        self.kept: list[torch.Tensor] = []  # memory that is kept is not given to another tensor
        self.known: set[int] = set()
        self.knows_all = model is not None
        if model is not None:
            self._note((batch, list(model.parameters()), list(model.buffers())))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        is_index = name in ("index", "index_put", "index_put_", "_index_put_impl_")
        if name in self.LOOKING or (
            is_index and any(part.dtype == torch.bool for part in tree_leaves(args[1]) if part is not None)
        ):
            self._count(name, name)
        read = [part for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
        if self.knows_all and any(part.dim() and part.numel() and _memory(part) not in self.known for part in read):
            self._count("from the host", name)
        made = func(*args, **(kwargs or {}))
        self._note(made)
        return made

    def _note(self, tensors: Any) -> None:
        new = [part for part in tree_leaves(tensors) if isinstance(part, torch.Tensor)]
        if self.knows_all:
            self.kept += new
            self.known.update(map(_memory, new))

    def _count(self, reason: str, name: str) -> None:
        self.found[reason] += 1
        frames = [frame for frame in traceback.extract_stack() if "hf_maskssl" in frame.filename]
        self.places += [f"{name} in {frame.filename}:{frame.lineno}" for frame in frames[-1:]]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def look_at_nothing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on a GPU, where values are not readable. In the list, an entry for each time that a mask is asked if it is all ones."""
    for name, module in list(sys.modules.items()):
        if name.startswith("hf_maskssl.models.") and hasattr(module, "values_are_readable"):
            monkeypatch.setattr(module, "values_are_readable", lambda tensor: False)
    asked: list[int] = []
    original = masking_utils._ignore_bidirectional_mask_sdpa

    def noted(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", noted)
    return asked


class ModelBehaviours(ContractBehaviours):
    """Tests of a method; a test asks for `case` where every case counts, for `shape` where only those that compute otherwise do.

    Attributes:
        kit: the method's module of cases.
        encoder_class: what `AutoModel` opens.
        cases: names of all cases.
        shapes: cases of which no two differ only in what is made of the losses.
        saved: fields that a saved model is to have, for weights that others lack.
        anew: the case and fields of a model that is opened from the checkpoint of its encoder.
        random: fields that make training random, so that what is recomputed must draw the same again.
        looks: case -> operations that the CPU waits for in a step, with their number.
        variants: cases and fields of steps that run other code, beside `cases`.
        impossible: fields that no configuration has.
        bad_inputs: what the encoder and the pre-training model refuse.
        bad_draws: draws, labels and the like that the pre-training model refuses beside a good batch.
    """

    kit: ModuleType
    encoder_class: Any
    cases: list[str]
    shapes: list[str]
    saved: dict[str, Any] = {}
    anew: tuple[str, dict[str, Any]]
    random: dict[str, Any] = {}
    looks: dict[str, dict[str, int]] = {}
    variants: list[tuple[str, dict[str, Any]]] = []
    impossible: list[tuple[dict[str, Any], str]]
    bad_inputs: Refusals
    bad_draws: Refusals = []

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        tables: dict[str, tuple[tuple[str, ...], list[Any]]] = {
            "case": (("case",), [(case,) for case in self.cases]),
            "shape": (("shape",), [(shape,) for shape in self.shapes]),
            "variant": (("variant",), [((case, {}),) for case in self.cases] + [(each,) for each in self.variants]),
            "fields": (("fields", "message"), self.impossible),
            "refused": (("shape", "refused", "message"), self.bad_inputs),
            "draws": (("shape", "draws", "message"), self.bad_draws),
        }
        for name in ("refused", "draws", "fields", "variant", "case", "shape"):
            if name in metafunc.fixturenames:
                names, rows = tables[name]
                ids = [f"{row[0]}-{row[-1]}" if len(row) > 2 else str(row[-1]) for row in rows]
                metafunc.parametrize(names, rows, ids=ids)
                return

    # What a method may have otherwise

    def encoder(self, case: str, **changes: Any) -> Any:
        torch.manual_seed(0)
        return self.encoder_class(self.kit.small_config(case, **changes)).eval()

    def for_encoder(self, batch: Batch) -> Batch:
        """Of a pre-training batch, what the encoder reads."""
        return batch

    @abstractmethod
    def is_token(self, encoder: Any, batch: Batch) -> torch.Tensor:
        """(B, P + N) bool: False at prefix tokens, padding and what a sample lacks."""

    def pooled(self, encoder: Any, states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        return torch.stack([row[own].mean(0) for row, own in zip(states, is_token, strict=True)])

    def same_choice(self, outputs: Any, draws: Batch) -> Batch:
        """Draws that mask what `outputs` have masked, where rounding could decide otherwise."""
        return draws

    def tables(self, model: Any) -> dict[str, torch.Tensor]:
        """Buffers, those too that no file holds; a balancer has some that nothing depends on."""
        return {name: buffer for name, buffer in model.named_buffers() if not name.startswith("balancer.")}

    # Checkpoints and configurations

    def test_save_and_load_give_the_same(self, case: str, tmp_path: Path) -> None:
        model = self.kit.small_model(case, **self.saved).train()
        batch, draws = self.kit.make_batch(case), self.kit.make_draws(case)
        model(**batch, **draws)  # one step, which running means and balancers remember
        model.save_pretrained(tmp_path)
        again = opened(AutoModelForPreTraining, tmp_path, type(model))
        assert same_fields(again.config, model.config)
        torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(*(self.tables(each) for each in (again, model)), rtol=0, atol=0)
        alone = opened(AutoModel, tmp_path, self.encoder_class).eval()
        for is_training in (True, False):
            found, expected = (each.train(is_training)(**batch, **draws) for each in (again, model))
            torch.testing.assert_close(found.loss, expected.loss)
        inputs = self.for_encoder(batch)
        found, expected = alone(**inputs), model.base_model(**inputs)
        torch.testing.assert_close(found.pooler_output, expected.pooler_output)

    def test_missing_weights_and_buffers_are_made_anew(self, tmp_path: Path) -> None:
        """Loading builds on the meta device: what the file lacks must come from `_init_weights`, tables included."""
        case, fields = self.anew
        encoder = self.encoder(case, **fields)
        encoder.save_pretrained(tmp_path)
        model, info = AutoModelForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
        torch.manual_seed(1)
        fresh = type(model)(self.kit.small_config(case, **fields))
        for found, expected in zip(model.named_buffers(), fresh.named_buffers(), strict=True):
            assert found[0] == expected[0] and torch.equal(found[1], expected[1]), found[0]
        assert same_fields(model.config, fresh.config)
        loaded = encoder.state_dict()
        for name, initial in fresh.named_parameters():
            found, own_name = model.get_parameter(name), name.removeprefix(f"{model.base_model_prefix}.")
            if name != own_name and own_name in loaded:
                assert torch.equal(found, loaded[own_name]), name
                continue
            assert name in info["missing_keys"], name
            if initial.unique().numel() == 1:  # zeros and ones
                assert torch.equal(found, initial), name
            else:  # other draws from the same distribution
                assert found.isfinite().all() and not torch.equal(found, initial), name
                if found.numel() > 60:
                    assert 0.6 < (found.std() / initial.std()).item() < 1.6, name

    def test_config_survives_json_and_a_folder(self, case: str, tmp_path: Path) -> None:
        config = self.kit.small_config(case)
        config.save_pretrained(tmp_path)
        written = type(config)(**json.loads(config.to_json_string(use_diff=False)))
        for again in (AutoConfig.from_pretrained(tmp_path), written):
            assert type(again) is type(config) and same_fields(again, config)

    # What comes out

    def test_encoder_shapes_and_pooling(self, case: str) -> None:
        model, batch = self.encoder(case), self.for_encoder(self.kit.make_batch(case))
        with torch.no_grad():
            output = model(**batch)
            is_token = self.is_token(model, batch)
            assert output.last_hidden_state.shape == (*is_token.shape, 16)
            assert not is_token[:, : model.num_prefix_tokens].any()
            pooled = self.pooled(model, output.last_hidden_state, is_token)
        torch.testing.assert_close(output.pooler_output, pooled)

    def test_hidden_states_and_attentions(self, shape: str) -> None:
        model, encoder = self.kit.small_model(shape).eval(), self.encoder(shape)
        batch, draws = self.kit.make_batch(shape), self.kit.make_draws(shape)
        for each, inputs in ((encoder, self.for_encoder(batch)), (model, self.for_encoder(batch) | draws)):
            each.set_attn_implementation("eager")
            configs = {part.config._attn_implementation for part in each.modules() if hasattr(part, "config")}
            assert configs == {"eager"}
            output = each(**inputs, output_hidden_states=True, output_attentions=True)
            states, attentions = output.hidden_states, output.attentions
            assert len(states) == 1 + len(attentions) == 1 + each.config.num_hidden_layers
            for hidden, weights in zip(states[1:], attentions, strict=True):
                assert hidden.shape == states[-1].shape and hidden.shape[-1] == 16
                assert (weights.shape[0], weights.shape[2]) == hidden.shape[:2]
                torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
            assert states[-1].shape[1] == attentions[-1].shape[-1]
            plain = each(**inputs)
            assert plain.hidden_states is None and plain.attentions is None

    def test_tuple_output_equals_dict_output(self, shape: str) -> None:
        """The loss comes first, as Trainer expects; also where the configuration asks for tuples."""
        batch = self.kit.make_batch(shape)
        inputs = batch | self.kit.make_draws(shape)
        for build, given in ((self.kit.small_model, inputs), (self.encoder, self.for_encoder(batch))):
            expected = build(shape).eval()(**given)
            for found in (
                build(shape).eval()(**given, return_dict=False),
                build(shape, return_dict=False).eval()(**given),
            ):
                assert isinstance(found, tuple) and len(found) == len(expected.to_tuple())
                torch.testing.assert_close(found[0], expected[list(expected)[0]])
        assert list(self.kit.small_model(shape)(**inputs))[:2] == ["loss", "loss_parts"]

    def test_draws_are_made_where_they_are_absent(self) -> None:
        is_random = []
        for shape in self.shapes:
            model, batch, losses = self.kit.small_model(shape).eval(), self.kit.make_batch(shape), []
            for seed in (3, 3, 4):
                torch.manual_seed(seed)
                losses.append(model(**batch).loss)
            assert losses[0] == losses[1]
            is_random.append(bool(losses[0] != losses[2]))
        assert any(is_random) == bool(self.kit.make_draws(self.shapes[0]))

    @pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
    def test_validation_loss_needs_no_graph(self, shape: str, grad_mode: Any) -> None:
        model, inputs = self.kit.small_model(shape).eval(), self.kit.make_batch(shape) | self.kit.make_draws(shape)
        expected = model(**inputs)
        with grad_mode():
            found = model(**inputs)
        assert not found.loss.requires_grad
        torch.testing.assert_close(found.loss, expected.loss)
        torch.testing.assert_close(found.loss_parts, expected.loss_parts)

    # Kernels and precisions

    def test_sdpa_gives_what_eager_gives(self, case: str) -> None:
        batch, draws = self.kit.make_batch(case), self.kit.make_draws(case)
        inputs, found, states = in_dtype(batch | draws, torch.float64), [], []
        for implementation in ("sdpa", "eager"):
            model, encoder = self.kit.small_model(case).double(), self.encoder(case).bfloat16()
            for each in (model, encoder):
                each.set_attn_implementation(implementation)
            found.append(step(model, inputs))
            given = in_dtype(self.for_encoder(batch), torch.bfloat16)
            states.append(encoder(**given).last_hidden_state[self.is_token(encoder, given)])
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)
        # Below 4, neighbouring bfloat16 numbers are 2^-6 apart, and so in proportion: four of those at the largest value.
        torch.testing.assert_close(*states, rtol=1e-4, atol=2**-6 * states[0].abs().max().item())

    def test_training_step_under_bfloat16_autocast(self, case: str) -> None:
        model, batch, draws = self.kit.small_model(case), self.kit.make_batch(case), self.kit.make_draws(case)
        expected = self.kit.small_model(case)(**batch, **draws)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(**batch, **self.same_choice(expected, draws))
        assert {part.dtype for part in (found.loss, *found.loss_parts.values())} == {torch.float32}
        for name in {"mask", "masks", "support_mask"} & set(expected):
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
        found.loss.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert len(gradients) > 20 and all(torch.isfinite(gradient).all() for gradient in gradients)
        torch.testing.assert_close(found.loss, expected.loss, rtol=0.05, atol=0.05)

    def test_training_step_of_a_bfloat16_model(self, case: str) -> None:
        model = self.kit.small_model(case, **self.saved).to(torch.bfloat16)
        found = step(model, self.kit.make_batch(case) | self.kit.make_draws(case))
        assert found["loss"].dtype == torch.float32 and len(found) > 20
        assert all(torch.isfinite(value).all() for value in found.values())

    def test_gradient_checkpointing_gives_the_same_gradients(self, shape: str) -> None:
        inputs, found = self.kit.make_batch(shape) | self.kit.make_draws(shape), []
        for use_checkpointing in (False, True):
            model = self.kit.small_model(shape, **self.random).train()
            if use_checkpointing:
                enable_checkpointing(model)
                assert model.is_gradient_checkpointing
            torch.manual_seed(3)
            found.append(step(model, inputs))
        torch.testing.assert_close(*found)

    @pytest.mark.slow
    def test_compiled_layers_give_the_same_gradients(self, shape: str) -> None:
        plain, compiled = self.kit.small_model(shape), self.kit.small_model(shape)
        if isinstance(plain, TaskPretraining) and plain.balancer.needs_gradients:
            pytest.skip("it goes back through the layers more than once, and `training.torch_compile` refuses it")
        assert len(compiled.compilable_modules()) >= 2
        for module in compiled.compilable_modules():
            module.compile()
        for seed in (0, 5):  # other numbers of masked tokens, for a method that has such
            inputs = self.kit.make_batch(shape, seed=seed) | self.kit.make_draws(shape)
            torch.testing.assert_close(step(compiled, inputs), step(plain, inputs), rtol=1e-4, atol=1e-5)

    # What a GPU would have to be waited for

    def test_nothing_is_looked_at_where_that_would_wait(self, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a GPU: shapes must not depend on values, nor may a padded step ask whether a mask is all ones."""
        inputs = self.kit.make_batch(shape) | self.kit.make_draws(shape)
        expected = step(self.kit.small_model(shape), inputs)
        asked = look_at_nothing(monkeypatch)
        found = step(self.kit.small_model(shape), inputs)
        assert not asked
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)

    def test_no_step_waits_for_the_device(
        self, variant: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case, fields = variant
        look_at_nothing(monkeypatch)
        model, batch = self.kit.small_model(case, **fields).train(), self.kit.make_batch(case)
        with Looks(model, batch) as looks:
            model(**batch).loss.backward()
        assert looks.found == self.looks.get(case, {}), looks.places

    # What is refused

    def test_impossible_configurations_are_refused(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(Exception, match=message) as caught:
            type(self.kit.small_config(self.cases[0]))(**fields)
        assert "Strict" in type(caught.value).__name__ or isinstance(caught.value, ValueError)

    def test_bad_input_is_refused(self, shape: str, refused: Batch, message: str) -> None:
        for model in self._models(shape):
            with pytest.raises(ValueError, match=message):
                model(**refused)

    def test_bad_draws_are_refused(self, shape: str, draws: Batch, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self._models(shape)[0](**self.kit.make_batch(shape) | draws)

    def test_a_batch_without_rows_is_refused(self, shape: str) -> None:
        batch = {
            name: {key: part[:0] for key, part in value.items()} if isinstance(value, dict) else value[:0]
            for name, value in self.kit.make_batch(shape).items()
        }
        with pytest.raises(ValueError, match="must have at least one row, got the shape"):
            self._models(shape)[1](**batch)

    def test_what_is_no_tensor_is_refused(self, shape: str) -> None:
        name, value = next(iter(self.kit.make_batch(shape).items()))
        lists = {key: part.tolist() for key, part in value.items()} if isinstance(value, dict) else value.tolist()
        with pytest.raises(
            ValueError, match="must be a tensor, got a list: call the processor with return_tensors='pt'"
        ):
            self._models(shape)[1](**{name: lists})

    @classmethod
    @functools.cache
    def _models(cls, case: str) -> tuple[Any, ...]:
        """Models that are not changed: they refuse."""
        model = cls.kit.small_model(case)
        return model, model.base_model


class ClassifierBehaviours(ModelBehaviours):
    """And of a method with heads that classify samples and tokens.

    Attributes:
        sequence_classifier, token_classifier: the heads.
        token_cases: padded cases of tokens.
        new_in_heads: what a head has that no pre-training checkpoint holds, beside `classifier`.
        poolings: fields of a head that reads the encoder otherwise.
    """

    sequence_classifier: Any
    token_classifier: Any
    token_cases: list[str]
    new_in_heads: set[str] = set()
    poolings: list[dict[str, Any]] = [{}]

    def heads(self) -> list[Head]:
        case = self.token_cases[-1]
        is_scored = self.kit.make_batch(case)["attention_mask"] == 1
        values = torch.rand(is_scored.shape, generator=torch.Generator().manual_seed(3))
        classes, several = torch.tensor([0, 1, 2, 1]), torch.eye(3)[[0, 1, 1, 2]]
        return [
            Head(self.sequence_classifier, case, {"num_labels": 3}, classes),
            Head(self.sequence_classifier, case, {"num_labels": 1}, torch.tensor([0.5, 1.5, -1.0, 2.0])),
            Head(self.sequence_classifier, case, {"num_labels": 3, **self.poolings[-1]}, several),
            Head(
                self.token_classifier, case, {"num_labels": 3}, torch.where(is_scored, (9 * values).long() % 3, -100)
            ),
            Head(self.token_classifier, case, {"num_labels": 1}, torch.where(is_scored, values, -100.0)),
        ]

    def head(self, kind: Any, case: str, **fields: Any) -> Any:
        torch.manual_seed(0)
        return kind(self.kit.small_config(case, **fields))

    def test_only_the_head_is_new_after_pretraining(self, tmp_path: Path) -> None:
        for case in self.token_cases:
            self.kit.small_model(case).save_pretrained(tmp_path / case)
            encoder = AutoModel.from_pretrained(tmp_path / case)
            for kind in (self.sequence_classifier, self.token_classifier):
                head, info = kind.from_pretrained(tmp_path / case, num_labels=3, output_loading_info=True)
                new = {name.split(".")[0] for name in info["missing_keys"]}
                assert {"classifier"} <= new <= {"classifier", *self.new_in_heads}
                assert not info["unexpected_keys"]
                assert all(torch.isfinite(parameter).all() for parameter in head.parameters())
                torch.testing.assert_close(head.base_model.state_dict(), encoder.state_dict(), rtol=0, atol=0)
                head.save_pretrained(tmp_path / "head")
                opened(self.encoder_class, tmp_path / "head", self.encoder_class)

    def test_sequence_classification_and_regression(self, case: str) -> None:
        batch, classes = self.kit.make_batch(case), torch.tensor([0, 1, 2, 1])
        labels = torch.tensor([0.5, 1.5, -1.0, 2.0])
        for fields in self.poolings:
            model = self.head(self.sequence_classifier, case, num_labels=3, **fields)
            output = model(**batch, labels=classes)
            assert output.logits.shape == (4, 3)
            output.loss.backward()
            assert all(parameter.grad is not None for parameter in model.parameters())
            torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, classes))
            output = self.head(self.sequence_classifier, case, num_labels=1, **fields)(**batch, labels=labels)
            torch.testing.assert_close(output.loss, (output.logits[:, 0] - labels).pow(2).mean())

    def test_token_classification_leaves_ignored_labels_out(self) -> None:
        for case in self.token_cases:
            batch = self.kit.make_batch(case)
            is_scored = batch["attention_mask"] == 1
            labels = torch.where(is_scored, batch["input_ids"] % 3, -100)
            model = self.head(self.token_classifier, case, num_labels=3)
            output = model(**batch, labels=labels)
            assert output.logits.shape == (*labels.shape, 3)
            assert not torch.allclose(output.logits[0, 0], output.logits[0, 1])
            output.loss.backward()
            assert all(parameter.grad is not None for parameter in model.parameters())
            torch.testing.assert_close(output.loss, F.cross_entropy(output.logits[is_scored], labels[is_scored]))
            output = self.head(self.token_classifier, case, num_labels=1)(**batch, labels=labels.float())
            torch.testing.assert_close(output.loss, (output.logits[..., 0] - labels)[is_scored].pow(2).mean())

    def test_labels_are_the_ids_of_classes(self) -> None:
        """On a GPU a class that the head does not have ends the process."""
        for head in (head for head in self.heads() if head.fields["num_labels"] == 3):
            model, batch = self.head(head.kind, head.case, **head.fields), self.kit.make_batch(head.case)
            if head.labels.is_floating_point():
                with pytest.raises(ValueError, match=r"one for each of num_labels=3 tasks, got \(4,\)"):
                    model(**batch, labels=head.labels[:, 0])
                continue
            losses = [model.eval()(**batch, labels=head.labels.to(kind)).loss for kind in (torch.int64, torch.int16)]
            torch.testing.assert_close(*losses)
            with pytest.raises(
                ValueError, match=r"must lie in \[0, num_labels=3\) or be -100 \(no class\), found \[-1, 3\]"
            ):
                model(**batch, labels=torch.full_like(head.labels, 3).index_fill(0, torch.tensor([0]), -1))
            with pytest.raises(
                ValueError, match="must be integers, the ids of num_labels=3 classes, got torch.float32"
            ):
                model(**batch, labels=head.labels.float())

    def test_a_heads_output_keeps_its_digits_under_autocast(self) -> None:
        """Years near 2000 are eight apart in bfloat16."""
        for kind in (self.sequence_classifier, self.token_classifier):
            model = self.head(kind, self.token_cases[0], num_labels=1).eval()
            with torch.no_grad():
                model.classifier.bias.fill_(2000.0)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**self.kit.make_batch(self.token_cases[0])).logits
            assert logits.dtype == torch.float32 and logits.unique().numel() > 0.5 * logits.numel()
