"""What each twin is held to: features, splits and shares of the dataset on the Hub, written out.

Where ../shared/data has the dataset, test_twin_schemas.py compares these with its files too; the
others are from knowledge of the Hub.
"""

from datasets import ClassLabel, List, Value

TEXT, INT, NUMBER = Value("string"), Value("int32"), Value("float32")
THREE = ["entailment", "neutral", "contradiction"]
TWO = ["entailment", "not_entailment"]
TRUTH = ["False", "True"]
STANDARD = ["train", "validation", "test"]
GLUE, SUPER = "nyu-mll/glue", "aps/super_glue"


def names(text: str) -> ClassLabel:
    return ClassLabel(names=text.split())


def glue(*texts: str, label) -> dict:
    label = ClassLabel(names=label) if isinstance(label, list) else label
    return {**dict.fromkeys(texts, TEXT), "label": label, "idx": INT}


def superglue(labels: list[str], idx=INT, **columns) -> dict:
    """SuperGLUE has the label last."""
    return {**columns, "idx": idx, "label": ClassLabel(names=labels)}


def sequence(**columns) -> dict:
    """A sequence of records: on the Hub, a list per column."""
    return {name: List(value) for name, value in columns.items()}


WSC = superglue(
    TRUTH, text=TEXT, span1_index=INT, span2_index=INT, span1_text=TEXT, span2_text=TEXT
)
# The features of each dataset on the Hub, in the order of its columns.
OFFICIAL = {
    (GLUE, "sst2"): glue("sentence", label=["negative", "positive"]),
    (GLUE, "mrpc"): glue("sentence1", "sentence2", label=["not_equivalent", "equivalent"]),
    (GLUE, "cola"): glue("sentence", label=["unacceptable", "acceptable"]),
    (GLUE, "stsb"): glue("sentence1", "sentence2", label=NUMBER),
    (GLUE, "qqp"): glue("question1", "question2", label=["not_duplicate", "duplicate"]),
    (GLUE, "mnli"): glue("premise", "hypothesis", label=THREE),
    (GLUE, "qnli"): glue("question", "sentence", label=TWO),
    (GLUE, "rte"): glue("sentence1", "sentence2", label=TWO),
    (GLUE, "wnli"): glue("sentence1", "sentence2", label=["not_entailment", "entailment"]),
    (GLUE, "ax"): glue("premise", "hypothesis", label=THREE),
    (SUPER, "boolq"): superglue(TRUTH, question=TEXT, passage=TEXT),
    (SUPER, "cb"): superglue(
        ["entailment", "contradiction", "neutral"], premise=TEXT, hypothesis=TEXT
    ),
    (SUPER, "copa"): superglue(
        ["choice1", "choice2"], premise=TEXT, choice1=TEXT, choice2=TEXT, question=TEXT
    ),
    (SUPER, "multirc"): superglue(
        TRUTH,
        {"paragraph": INT, "question": INT, "answer": INT},
        paragraph=TEXT,
        question=TEXT,
        answer=TEXT,
    ),
    (SUPER, "record"): {
        "passage": TEXT,
        "query": TEXT,
        "entities": List(TEXT),
        "entity_spans": sequence(text=TEXT, start=INT, end=INT),
        "answers": List(TEXT),
        "idx": {"passage": INT, "query": INT},
    },
    (SUPER, "rte"): superglue(TWO, premise=TEXT, hypothesis=TEXT),
    (SUPER, "wic"): superglue(
        TRUTH,
        word=TEXT,
        sentence1=TEXT,
        sentence2=TEXT,
        start1=INT,
        start2=INT,
        end1=INT,
        end2=INT,
    ),
    (SUPER, "wsc"): WSC,
    (SUPER, "wsc.fixed"): WSC,
    ("google/boolq", "default"): {"question": TEXT, "answer": Value("bool"), "passage": TEXT},
    ("pietrolesci/glue_diagnostics", "default"): {
        "lexical semantics": TEXT,
        "predicate-argument structure": TEXT,
        "logic": TEXT,
        "knowledge": TEXT,
        "domain": TEXT,
        "premise": TEXT,
        "hypothesis": TEXT,
        "label": ClassLabel(names=THREE),
    },
    ("stanfordnlp/snli", "plain_text"): {
        "premise": TEXT,
        "hypothesis": TEXT,
        "label": ClassLabel(names=THREE),
    },
    ("SetFit/sst5", "default"): {"text": TEXT, "label": Value("int64"), "label_text": TEXT},
    ("CogComp/trec", "default"): {
        "text": TEXT,
        "coarse_label": ClassLabel(names=["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]),
        "fine_label": names("""
            ABBR:abb ABBR:exp ENTY:animal ENTY:body ENTY:color ENTY:cremat ENTY:currency ENTY:dismed
            ENTY:event ENTY:food ENTY:instru ENTY:lang ENTY:letter ENTY:other ENTY:plant ENTY:product
            ENTY:religion ENTY:sport ENTY:substance ENTY:symbol ENTY:techmeth ENTY:termeq ENTY:veh
            ENTY:word DESC:def DESC:desc DESC:manner DESC:reason HUM:gr HUM:ind HUM:title HUM:desc
            LOC:city LOC:country LOC:mount LOC:other LOC:state NUM:code NUM:count NUM:date NUM:dist
            NUM:money NUM:ord NUM:other NUM:period NUM:perc NUM:speed NUM:temp NUM:volsize NUM:weight
            """),
    },
    ("eriktks/conll2003", "conll2003"): {
        "id": TEXT,
        "tokens": List(TEXT),
        "pos_tags": List(
            names("""
                " '' # $ ( ) , . : `` CC CD DT EX FW IN JJ JJR JJS LS MD NN NNP NNPS NNS NN|SYM PDT
                POS PRP PRP$ RB RBR RBS RP SYM TO UH VB VBD VBG VBN VBP VBZ WDT WP WP$ WRB
                """)
        ),
        "chunk_tags": List(
            names("""
                O B-ADJP I-ADJP B-ADVP I-ADVP B-CONJP I-CONJP B-INTJ I-INTJ B-LST I-LST B-NP I-NP
                B-PP I-PP B-PRT I-PRT B-SBAR I-SBAR B-UCP I-UCP B-VP I-VP
                """)
        ),
        "ner_tags": List(names("O B-PER I-PER B-ORG I-ORG B-LOC I-LOC B-MISC I-MISC")),
    },
    ("rajpurkar/squad", "plain_text"): {
        "id": TEXT,
        "title": TEXT,
        "context": TEXT,
        "question": TEXT,
        "answers": sequence(text=TEXT, answer_start=INT),
    },
    ("ucinlp/drop", "default"): {
        "section_id": TEXT,
        "query_id": TEXT,
        "passage": TEXT,
        "question": TEXT,
        "answers_spans": sequence(spans=TEXT, types=TEXT),
    },
    ("openai/gsm8k", "main"): {"question": TEXT, "answer": TEXT},
    ("tatsu-lab/alpaca", "default"): {
        "instruction": TEXT,
        "input": TEXT,
        "output": TEXT,
        "text": TEXT,
    },
    ("tuetschek/e2e_nlg", "default"): {"meaning_representation": TEXT, "human_reference": TEXT},
    ("GEM/dart", "default"): {
        "gem_id": TEXT,
        "gem_parent_id": TEXT,
        "dart_id": INT,
        "tripleset": List(List(TEXT)),
        "subtree_was_extended": Value("bool"),
        "target_sources": List(TEXT),
        "target": TEXT,
        "references": List(TEXT),
    },
    ("GEM/web_nlg", "en"): {
        "gem_id": TEXT,
        "gem_parent_id": TEXT,
        "input": List(TEXT),
        "target": TEXT,
        "references": List(TEXT),
        "category": TEXT,
        "webnlg_id": TEXT,
    },
    ("Salesforce/wikitext", "wikitext-2-raw-v1"): {"text": TEXT},
}
# On the Hub; STANDARD where nothing is said.
SPLITS = {
    (GLUE, "mnli"): [
        "train",
        "validation_matched",
        "validation_mismatched",
        "test_matched",
        "test_mismatched",
    ],
    (GLUE, "ax"): ["test"],
    ("pietrolesci/glue_diagnostics", "default"): ["test"],
    ("CogComp/trec", "default"): ["train", "test"],
    ("google/boolq", "default"): ["train", "validation"],
    ("rajpurkar/squad", "plain_text"): ["train", "validation"],
    ("ucinlp/drop", "default"): ["train", "validation"],
    ("openai/gsm8k", "main"): ["train", "test"],
    ("tatsu-lab/alpaca", "default"): ["train"],
}
LABELLED_TEST = {
    (GLUE, "mrpc"),
    ("stanfordnlp/snli", "plain_text"),
    ("SetFit/sst5", "default"),
}
# The column of the labels where it is not called so.
LABELS = {("CogComp/trec", "default"): "coarse_label", ("google/boolq", "default"): "answer"}
# Shares of the labels in the official training rows.
SHARES = {
    (GLUE, "cola"): (0.296, 0.704),
    (GLUE, "qqp"): (0.631, 0.369),
    (GLUE, "mnli"): (0.333, 0.333, 0.333),
    (GLUE, "qnli"): (0.5, 0.5),
    (GLUE, "rte"): (0.502, 0.498),
    (GLUE, "wnli"): (0.509, 0.491),
    (SUPER, "boolq"): (0.377, 0.623),
    ("google/boolq", "default"): (0.377, 0.623),
    (SUPER, "cb"): (0.46, 0.476, 0.064),
    (SUPER, "copa"): (0.488, 0.512),
    (SUPER, "multirc"): (0.56, 0.44),
    (SUPER, "rte"): (0.502, 0.498),
    (SUPER, "wic"): (0.5, 0.5),
    (SUPER, "wsc"): (0.532, 0.468),
    (SUPER, "wsc.fixed"): (0.532, 0.468),
    ("stanfordnlp/snli", "plain_text"): (0.333, 0.333, 0.333),
    ("SetFit/sst5", "default"): (0.128, 0.26, 0.19, 0.272, 0.151),
    ("CogComp/trec", "default"): (0.016, 0.229, 0.213, 0.224, 0.153, 0.164),
}
# What no two splits may share: by default all columns of text together.
KEYS = {
    (SUPER, "multirc"): "paragraph",
    (SUPER, "record"): "passage",
    ("eriktks/conll2003", "conll2003"): "tokens",
    ("rajpurkar/squad", "plain_text"): "context",
    ("ucinlp/drop", "default"): "passage",
    ("openai/gsm8k", "main"): "question",
    ("tuetschek/e2e_nlg", "default"): "meaning_representation",
    ("GEM/dart", "default"): "tripleset",
    ("GEM/web_nlg", "en"): "input",
}
