"""`normwise demo`."""

from __future__ import annotations

import json

import jsonschema
from cli.workshop import DOCS, Workshop
from markupsafe import escape


def test_demo_prints_json_alone_and_the_gain_is_real(workshop: Workshop):
    result = workshop.run("demo", "--format", "json", "--output", "pages")
    assert result.code == 0
    document = result.document
    schema = json.loads((DOCS / "report-schema.json").read_text(encoding="utf-8"))
    assert document["schema"] == "normwise-demo/1"
    for number, situation in enumerate(document["situations"], 1):
        jsonschema.Draft202012Validator(schema).validate(situation["report"])
        assert situation["accuracy"]["after"] > situation["accuracy"]["before"] + 0.05
        assert situation["applied"]
        assert situation["report"]["causes"][0]["low"] > 0
        (page,) = (workshop.folder / "pages").glob(f"{number}-*.html")
        assert escape(situation["report"]["causes"][0]["title"]) in page.read_text(encoding="utf-8")
    assert {row["code"] for row in document["causes"]} <= {row["code"] for row in document["findings"]}
    assert all(row["evidence"] for row in document["findings"])
    assert json.loads((workshop.folder / "pages/demo.json").read_text(encoding="utf-8")) == document
