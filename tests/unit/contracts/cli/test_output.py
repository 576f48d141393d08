"""Tables on terminals that are narrower than they."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from contracts.cli.output import PlainConsole, marked, one_line, print_whole
from worker.cli.status import _leases

ID = "0x" + "ab" * 32
WHY = "no fitting provider is ready to lock the stake that this bid wants: the most that one locks is 20 tUSD"


def shown(table: Table, width: int, terminal: bool = True) -> list[str]:
    file = io.StringIO()
    print_whole(Console(file=file, width=width, force_terminal=terminal, color_system=None), table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def filled(*columns: str, rows: int = 2, **cells: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for _ in range(rows):
        table.add_row(*(cells[name] for name in columns))
    return table


def test_what_fits_stays_a_table() -> None:
    assert shown(filled("job", "cost", job="0x12", cost="1 tUSD"), 80) == ["job   cost", "0x12  1 tUSD", "0x12  1 tUSD"]


def test_sentences_go_on_below_and_nothing_else_does() -> None:
    lines = shown(filled("job", "cost", "why", job="0x1234567890", cost="1.000001 tUSD", why=WHY), 80)
    assert max(map(len, lines)) <= 80
    assert sum("0x1234567890" in line for line in lines) == 2 == sum("1.000001 tUSD" in line for line in lines)
    told = " ".join(line[29:].strip() if line[:29].strip() else line.strip() for line in lines[1:])
    assert told == f"{WHY} {WHY}"


def test_what_has_no_room_beside_the_others_becomes_a_list() -> None:
    names = [f"column {n}" for n in range(10)]
    cells = {name: f"{n}.123456 tUSD" for n, name in enumerate(names)} | {"column 3": ID, "column 4": WHY}
    lines = shown(filled(*names, **cells), 80)
    assert max(map(len, lines)) <= 80
    assert lines.count(f"column 3  {ID}") == 2 and lines.count("column 9  9.123456 tUSD") == 2
    assert " ".join(" ".join(lines).split()).count(WHY) == 2


def test_facts_too_wide_stand_below_their_names() -> None:
    facts = Table(title=f"a title and {ID} and {ID}", box=None, show_header=False, pad_edge=False)
    facts.add_row("machines that fit now", "3")
    facts.add_row("job's hash", ID)
    lines = shown(facts, 80)
    assert max(map(len, lines)) <= 80 and f"  {ID}" in lines and "machines that fit now  3" in lines
    assert "".join(lines).replace(" ", "").count(ID) == 3


def test_a_pipe_gets_the_whole_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = shown(filled("job", "other", job=ID, other=ID), 80, terminal=False)
    assert lines[1:] == [f"{ID}  {ID}"] * 2


def test_a_strangers_text_is_text() -> None:
    file = io.StringIO()
    PlainConsole(file=file, width=80).print(one_line("[/] [red]x[/red] \x1b[2J\nnext"))
    assert file.getvalue() == "[/] [red]x[/red]  [2J next\n"


HOSTILE = "[/x] [red]x[/red] :skull: \x1b]0;owned\x07 \x9b2J \u202egnp.exe [link=file:///etc/passwd]y"
TAME = "[/x] [red]x[/red] :skull: ?]0;owned? ?2J ?gnp.exe [link=file:///etc/passwd]y"


def tamed(text: str) -> str:
    return text.replace("\N{REPLACEMENT CHARACTER}", "?")


@pytest.mark.parametrize("width", [200, 30])
def test_strangers_texts_are_shown_as_they_are_wherever_they_stand(width: int) -> None:
    file = io.StringIO()
    table = Table("job", HOSTILE, title=HOSTILE, caption=HOSTILE, box=None, pad_edge=False)
    table.add_row("0x12", HOSTILE)
    plain = PlainConsole(file=file, width=width, force_terminal=True, color_system=None)
    print_whole(plain, table)
    plain.print(HOSTILE, highlight=False)
    plain.rule(HOSTILE)
    plain.print(marked("[bold]Note:[/] {}", HOSTILE))
    shown = "".join(tamed(file.getvalue()).split())
    assert "\x1b" not in shown and "\x9b" not in shown and "\u202e" not in shown
    assert shown.count("".join(TAME.split())) >= (7 if width == 200 else 3)  # a rule is cut, cells may be


def test_a_providers_status_shows_any_reason() -> None:
    lease = dict.fromkeys(("made", "approved", "redeemed", "start", "end", "earned"), 0)
    lease |= {"lease": "0x" + "11" * 32, "job": "0x" + "22" * 32, "reason": HOSTILE[:50]}  # type: ignore[dict-item]
    file = io.StringIO()
    report = {"key": "rig", "decimals": 6}
    PlainConsole(file=file, width=200, force_terminal=True, color_system=None).print(
        _leases([(report, lease)], several=True)
    )
    assert "[/x] [red]x[/red] :skull: ?]0;owned?" in tamed(file.getvalue())
