"""A small Moonshine on synthetic speech: what `launch/quickstart.sh` trains in minutes on two CPU cores.

Rows are packed: one shape to compile, and hardly any padding.
"""

from jaxspeech.config import base


def get_config():
    config = base("jaxspeech.tasks.moonshine.Moonshine")
    config.model.dim = 128
    config.model.heads = 4
    config.model.encoder_layers = 3
    config.model.decoder_layers = 2
    config.model.vocab_size = 0  # the tokenizer's
    config.model.tokens_per_second = 30.0  # tokens are letters here

    config.data.tokenizer = "characters:abcdefghijklmnopqrstuvwxyz' "
    config.data.batching = "packed"
    config.data.row_seconds = 8.0
    config.data.max_seconds = 8.0
    config.data.batch_seconds = 32.0
    config.data.row_multiple = 1

    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 150

    config.train.steps = 850
    config.eval.normalizer = "basic"  # the English one joins digits: "one two" would be one word, 12
    config.eval.every = 425
    config.checkpoint.every = 200
    config.log.every = 20
    return config
