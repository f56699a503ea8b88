"""The pictures of a report: drawn, linked, and the same for equal records."""

import re

from test_report import both_texts, made_up_records, made_up_specs, write


def test_equal_records_give_equal_bytes(tmp_path):
    specs = made_up_specs()
    outs = [write(tmp_path / name, specs, made_up_records(specs)) for name in ("a", "b")]
    files = [{p.relative_to(o): p.read_bytes() for p in o.rglob("*.*")} for o in outs]
    assert files[0] == files[1]
    assert {p.suffix for p in files[0]} == {".html", ".md", ".csv", ".png"}


def test_every_picture_is_there_and_linked_and_old_ones_are_gone(tmp_path):
    specs = made_up_specs()
    old = tmp_path / "reports" / "made_up" / "plots" / "pareto_glue-old.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    out = write(tmp_path, specs, made_up_records(specs))
    pictures = {f"plots/{p.name}" for p in (out / "plots").iterdir()}
    page, text = both_texts(out)
    assert set(re.findall(r'<img src="([^"]+)"', page)) == pictures
    assert set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)) == pictures
    assert len(pictures) == 3 and not old.exists()
    assert all((out / p).read_bytes().startswith(b"\x89PNG") for p in pictures)
