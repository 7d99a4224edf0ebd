"""Builds the documentation site: `python docs/site/build.py [FOLDER]`, by default in `build/docs`.

The pages are gathered in the layout of the repository, so the links between them stay what they are. Guides and
notebooks are the files of the repository; the pages of the API come from the packages, and those of the models from
`saved_models` and `zoo/results`. A warning is an error, and so is a link within the site that leads nowhere.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from api import api_pages
from links import broken_links
from sphinx.cmd.build import build_main

from zoo.evaluation.leaderboard import leaderboard_table, read_leaderboard
from zoo.evaluation.results_table import models_table

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]
PAGES = ("docs/*.md", "notebooks/*.ipynb", "*.md")
# In the order of the menu. A guide that is not named here comes last.
GUIDES = {
    "Start": "first_steps choosing_a_method data predictions",
    "Models": "layers deep_nets priors likelihoods targets hierarchical_groups",
    "Training": "training inference natural_gradient tensorboard devices scaling comparing",
    "Judging": "judging calibration acquisition",
    "Transfer": "informed_priors imagenet_priors sequential_updating compression",
    "Use": "serving batch_prediction sharing extending",
    "Migrating": "migrating_from_tfp migrating_from_torch",
}
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)#:]+\.png)\)")
LINK = re.compile(r"\]\(([^)#:\s]+)[^)]*\)")


def main() -> None:
    """Gathers the pages, runs Sphinx on them, and checks the links of the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "docs", help="for the site")
    output = parser.parse_args().folder.resolve()
    # Sphinx leaves this file in what it builds.
    if output.exists() and any(output.iterdir()) and not (output / ".buildinfo").is_file():
        sys.exit(f"{output} has files that are no site, and would be lost. Choose another folder, or an empty one.")
    shutil.rmtree(output, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix="tfp_bnn_site_"))
    gather(work / "pages")
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(SITE), "-d", str(work / "doctrees")]
    if build_main([*options, str(work / "pages"), str(output)]):
        sys.exit(f"The site has warnings. Its pages were kept in {work / 'pages'}.")
    shutil.rmtree(work)
    if broken := broken_links(output):
        sys.exit("\n".join(["These links lead nowhere:", *broken]))
    print(f"{len(list(output.rglob('*.html')))} pages: {output / 'index.html'}")


def gather(sources: Path) -> None:
    """Writes all pages of the site, as Markdown, reStructuredText and notebooks, to a new folder."""
    for path in [*(path for pattern in PAGES for path in sorted(ROOT.glob(pattern))), *SITE.glob("*.md")]:
        name = path.name if path.parent == SITE else path.relative_to(ROOT)
        copy(path, sources / name)
        if path.suffix == ".md" and path.parent != SITE:
            copy_what_it_links(path, sources)
    guides = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
    append(sources / "guides.md", "\n".join(guide_menus(guides)))
    cards = sorted((ROOT / "saved_models").glob("*/README.md"))
    for card in cards:
        copy(card, sources / "models" / f"{card.parent.name}.md")
    append(sources / "models.md", models_page([card.parent.name for card in cards]))
    api = api_pages()
    append(sources / "api.md", menu("", [f"api/{module}" for module in api]))
    for module, text in api.items():
        write(sources / "api" / f"{module}.rst", text)
    append(sources / "notebooks.md", menu("", [f"notebooks/{path.stem}" for path in notebooks()]))
    append(sources / "gallery.md", "\n\n".join([*figures_of_guides(), *figures_of_notebooks(sources)]))


def guide_menus(guides: list[str]) -> Iterator[str]:
    """Yields the menu of each group of guides, without guides that do not exist."""
    groups = {title: names.split() for title, names in GUIDES.items()}
    named = {name for names in groups.values() for name in names}
    for title, names in {**groups, "More": [guide for guide in guides if guide not in named]}.items():
        if found := [name for name in names if name in guides]:
            yield menu(title, [f"docs/{name}" for name in found])


def models_page(names: list[str]) -> str:
    """The tables of all models and of the leaderboard, with links to the cards, and the menu of the cards."""
    rows = read_leaderboard()
    board = leaderboard_table(rows) if rows else "No comparison of a model of the zoo has been run yet."
    text = f"## All models\n\n{models_table()}\n\n## Leaderboard\n\n{board}\n\n"
    for name in names:
        text = text.replace(f"| `{name}` |", f"| [`{name}`](models/{name}.md) |")
    return f"{text}## Cards\n\n{menu('', [f'models/{name}' for name in names])}"


def figures_of_guides() -> Iterator[str]:
    """Yields the figures of the guides with a link to the guide that explains each."""
    for guide in sorted((ROOT / "docs").glob("*.md")):
        for caption, name in IMAGE.findall(guide.read_text("utf-8")):
            yield figure(f"docs/{name}", " ".join(caption.split()), f"docs/{guide.name}", title_of(guide))


def figures_of_notebooks(sources: Path) -> Iterator[str]:
    """Yields the figures of the notebooks, which it writes to files, with the heading below which each is."""
    for path in notebooks():
        heading = title = ""
        for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"]):
            headings = re.findall(r"^#+ (.*)$", "".join(cell["source"]), re.MULTILINE)
            if cell["cell_type"] == "markdown" and headings:
                title, heading = title or headings[0], headings[-1]
            for place, output in enumerate(cell.get("outputs", [])):
                if image := output.get("data", {}).get("image/png"):
                    name = f"gallery/{path.stem}_{number}_{place}.png"
                    write(sources / name, b64decode(image))
                    yield figure(name, heading, f"notebooks/{path.name}", title)


def figure(image: str, caption: str, page: str, title: str) -> str:
    """One figure of the gallery."""
    return f"```{{figure}} {image}\n:alt: {caption}\n:class: gallery\n\n[{title}]({page}): {caption}\n```"


def title_of(page: Path) -> str:
    """The first heading of a page."""
    return re.search(r"^# (.*)$", page.read_text("utf-8"), re.MULTILINE)[1]


def notebooks() -> list[Path]:
    """The notebooks, in reading order."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def menu(caption: str, pages: list[str]) -> str:
    """A list of links to pages, which also appears at the side of every page."""
    option = f":caption: {caption}\n" if caption else ""
    return "\n".join([f"```{{toctree}}\n:maxdepth: 1\n{option}", *pages, "```\n"])


def copy_what_it_links(page: Path, sources: Path) -> None:
    """Copies the files that a page shows or links and that are no pages, such as figures and tables."""
    for link in LINK.findall(page.read_text("utf-8")):
        path = (page.parent / unquote(link)).resolve()
        if path.is_file() and path.suffix not in (".md", ".ipynb"):
            copy(path, sources / path.relative_to(ROOT))


def copy(path: Path, to: Path) -> None:
    """Copies a file, and makes its folder."""
    write(to, path.read_bytes())


def append(path: Path, text: str) -> None:
    """Adds text to the end of a page."""
    write(path, f"{path.read_text('utf-8')}\n{text}")


def write(path: Path, content: str | bytes) -> None:
    """Writes a file, and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


if __name__ == "__main__":
    main()
