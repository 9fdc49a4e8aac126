"""The page on training: what it shows runs, and its table of settings is the schemes' own."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import fewbit
from fewbit.train.schemes import SCHEMES
from fewbit.train.schemes.few_bit import FewBit

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.M | re.S)
    names: dict = {}
    exec(block, names)
    network = fewbit.load(tmp_path / "model.npz")
    assert len(network.nodes) == 4
    assert network.nodes[0].lstm.weights == "ternary"


def test_the_table_has_every_scheme_and_setting():
    table = TEXT[TEXT.index("| scheme | weights |") :].split("\n\n")[0].splitlines()[2:]
    cells = [line.strip("|").split("|") for line in table]
    rows = {name.strip(" `"): settings for name, _, settings in cells}
    common = set(re.findall(r"`(\w+)=", rows["all few-bit schemes"]))
    assert common == {field.name for field in fields(FewBit)} - {"rule"}
    for name, scheme in SCHEMES.items():
        own = set(re.findall(r"`(\w+)=", rows[name]))
        shared = common if issubclass(scheme, FewBit) else set()
        has = {field.name for field in fields(scheme)}
        assert own <= has, name
        # A rule that is the only one needs no word.
        assert has - own - shared <= {"rule"}, name
        for field in fields(scheme):
            shown = re.search(rf"`{field.name}=(\w+)", rows[name])
            if shown and field.default is not MISSING and field.name != "rule":
                words = {None: "none", True: "true", False: "false"}
                default = field.default
                known = default is None or isinstance(default, bool)
                wanted = words[default] if known else str(default)
                assert shown[1] == wanted.split(".")[0], (name, field.name)
