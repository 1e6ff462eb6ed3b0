"""What someone writes who knows transformers and nothing of this package but its import: fine-tune on a CSV file.

    python plain_transformers.py CHECKPOINT DATA.csv OUTPUT

DATA.csv has the columns text and label. Prints the accuracy on its rows before and after training.
"""

import sys

import hf_maskssl  # noqa: F401  the one added line

# isort: split
from datasets import load_dataset
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

checkpoint, data_file, output = sys.argv[1:]

config = AutoConfig.from_pretrained(checkpoint, num_labels=2)
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForSequenceClassification.from_pretrained(checkpoint, config=config)

rows = load_dataset("csv", data_files=data_file, split="train")
rows = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=config.max_position_embeddings))

trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=output,
        num_train_epochs=16,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=rows,
    processing_class=tokenizer,
    compute_metrics=lambda said: {"accuracy": (said.predictions.argmax(-1) == said.label_ids).mean()},
)
before = trainer.evaluate(rows)["eval_accuracy"]
trainer.train()
after = trainer.evaluate(rows)["eval_accuracy"]
trainer.save_model(output)
print(f"accuracy {before:.3f} -> {after:.3f}")
