"""Judges the book of docs/: every link of every page leads to something that is in the book."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


class Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.update(attrs[name] for name in ("id", "name") if attrs.get(name))
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name)]


def main(book):
    # print.html is all pages in one, 404.html has no place of its own.
    files = [it for it in sorted(book.rglob("*.html")) if it.name not in ("print.html", "404.html")]
    pages = {it: Page(it.read_text()) for it in files}
    broken, followed = [], 0
    for path, page in pages.items():
        for link in page.links:
            address, section = urldefrag(link)
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            followed += 1
            target = (path.parent / unquote(address)).resolve() if address else path
            told = f"{path.relative_to(book)}: {link}"
            if not target.is_relative_to(book) or not target.is_file():
                broken.append(told)
            elif section and target in pages and unquote(section) not in pages[target].ids:
                broken.append(f"{told}: no such section")
    for finding in broken:
        print(f"leads nowhere: {finding}")
    print(f"{len(files)} pages, {followed} links followed, {len(broken)} broken")
    return bool(broken) or followed < 500


sys.exit(main(Path(sys.argv[1]).resolve()))
