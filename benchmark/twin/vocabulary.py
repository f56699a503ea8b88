"""Trains the tokenizers of twin models on twin text, each with the algorithm of its family."""

import json
import string
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmark.twin.data import tables

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from benchmark.twin.models import Twin

# The corpus is fixed, so that a new twin data set changes no tokenizer. Each vocabulary also has every
# printable ASCII character, or every byte, so that any other text is split into them rather than unknown.
CORPUS = (("nyu-mll/glue", "sst2"), ("nyu-mll/glue", "mrpc"))
PROMPTS = """Question : Answer : Yes No Maybe True False Passage : Context : Choice : Sentence :
Premise : Hypothesis : Does this mean that ? Is it true ? Based on the passage , what is the best
answer ? What who where when why which how many how much are there in all ? It was great . It was
terrible . The first second third one two three four five six seven eight nine ten eleven twelve
He she they we you his her their our your has have had do does did can could will would should more
less than left each every all some any new old big red blue green white black man woman boy girl
people child children friend house home school street river garden book apple apples dog cat bird
food coffee shop restaurant price range customer rating area near city centre riverside family
friendly high low moderate average English French Italian Chinese Japanese Indian fast eat type
name year years day days week hour hours time money dollars cost costs pays gave gives get makes
made goes went came because so then after before while since until if instead also total half"""


def train_tokenizer(twin: "Twin") -> "PreTrainedTokenizerBase":
    """The trained tokenizer of `twin`, an instance of its transformers class with VOCAB_SIZE tokens."""
    import transformers

    from benchmark.twin.models import VOCAB_SIZE

    train = {"wordpiece": _wordpiece, "bytes": _bytes, "metaspace": _metaspace}[twin.training]
    trained = train(list(twin.special), VOCAB_SIZE)
    model = json.loads(trained.to_str())["model"]
    parts = {"vocab": model["vocab"]}
    if "merges" in model:
        parts["merges"] = [tuple(pair) for pair in model["merges"]]
    tokenizer: PreTrainedTokenizerBase = getattr(transformers, twin.tokenizer)(
        **parts, model_max_length=twin.max_length, **twin.tokenizer_options
    )
    assert len(tokenizer) == VOCAB_SIZE, (twin.tokenizer, len(tokenizer))
    return tokenizer


def _text() -> list[str]:
    """The lines that the tokenizers are trained on."""
    rows = [
        value
        for dataset_id, config in CORPUS
        for row in tables(dataset_id, config).splits["train"]
        for value in row.values()
        if isinstance(value, str)
    ]
    return rows + 20 * PROMPTS.splitlines()  # about as frequent as the words of the rows


def _wordpiece(special: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = list(string.ascii_lowercase + string.digits + string.punctuation)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        # The trainer numbers "##x" pieces in the order of a hash map, which differs between processes, and
        # breaks ties by number. As special tokens they have fixed numbers.
        special_tokens=special + [f"##{letter}" for letter in alphabet],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(), trainer)
    return tokenizer


def _bytes(special: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(), trainer)
    return tokenizer


def _metaspace(special: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        # as in LLaMA's vocabulary, a character outside the vocabulary is split into its bytes
        special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
        initial_alphabet=list(string.ascii_letters + string.digits + string.punctuation),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(), trainer)
    return tokenizer
