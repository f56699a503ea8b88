"""The two Java programs inside pycocoevalcap: the PTB tokenizer and METEOR 1.5.

They are called directly. The wrappers of that package write into its folder, read text in the machine's
encoding, and take a line break inside a text for the start of another text.
"""

import contextlib
import importlib.util
import shutil
import subprocess
import threading
from pathlib import Path

_JAVA = ("java", "-Dfile.encoding=UTF-8", "-Xmx2G")
# the tokens that COCO's caption evaluation drops after tokenising
_DROPPED = frozenset(".?!,:;-'`") | {"''", "``", "--", "...", "-LRB-", "-RRB-", "-LCB-", "-RCB-"}


def missing() -> str | None:
    """The reason why the two programs cannot run on this machine; None if they can."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "the package pycocoevalcap is not installed"
    if shutil.which("java") is None:
        return "Java is not installed (no `java` on the PATH)"
    return None


def _jar(path: str) -> str:
    spec = importlib.util.find_spec("pycocoevalcap")
    assert spec is not None and spec.submodule_search_locations, "see missing()"
    return str(Path(spec.submodule_search_locations[0]) / path)


def tokenize(texts: list[str]) -> list[list[str]]:
    """The Penn Treebank tokens of each text, in lower case and without punctuation. A text is one line."""
    program = [*_JAVA, "-cp", _jar("tokenizer/stanford-corenlp-3.4.1.jar")]
    command = [*program, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = "".join(f"{text}\n" for text in texts)
    done = subprocess.run(command, input=lines.encode(), capture_output=True, check=False)
    *tokens, rest = done.stdout.decode().split("\n")
    if done.returncode or rest or len(tokens) != len(texts):
        raise RuntimeError(f"the PTB tokenizer failed: {done.stderr.decode()[-500:]}")
    return [[word for word in line.split() if word not in _DROPPED] for line in tokens]


def meteor(predictions: list[list[str]], references: list[list[list[str]]]) -> float:
    """METEOR 1.5 for English of a corpus of tokenised texts (0 to 1)."""
    program = [*_JAVA, "-jar", _jar("meteor/meteor-1.5.jar")]
    command = [*program, "-", "-", "-stdio", "-l", "en", "-norm"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None and answers is not None  # both are pipes

        def ask() -> None:
            with contextlib.suppress(BrokenPipeError):  # METEOR has stopped; checked below
                for prediction, texts in zip(predictions, references, strict=True):
                    fields = ["SCORE", *(" ".join(text) for text in (*texts, prediction))]
                    questions.write(" ||| ".join(fields) + "\n")
                questions.flush()

        # in a thread, because METEOR answers while it reads, and blocks when its output is not read
        asking = threading.Thread(target=ask)
        asking.start()
        statistics = [answers.readline().strip() for _ in predictions]
        asking.join()
        if not all(statistics):
            process.kill()
            raise RuntimeError(
                "METEOR stopped before it had scored all texts; does Java have 2 GiB?"
            )
        questions.write(" ||| ".join(["EVAL", *statistics]) + "\n")
        questions.close()
        scores = answers.read().split()  # one per prediction, then the corpus score
    return float(scores[-1])
