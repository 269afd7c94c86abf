"""Looks at the page of `rampart report` in Chromium: nothing is fetched or run, everything is seen, at any width.

Usage: judge.py RAMPART CHROMIUM FIXTURE PICTURES
"""

import pathlib
import re
import subprocess
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

SECTIONS = ["posture", "violations", "exceptions", "keys", "retention", "holds", "network", "controls"]
WIDTHS = [375, 1280]
# WCAG 2.1, levels A and AA, and what axe holds to be good practice.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


def told(rampart, fixture):
    answer = subprocess.run([rampart, "report", fixture, "--output=html"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert answer.returncode == 0, answer.stderr.decode()
    return answer.stdout.decode()


def watched(page):
    """What a page says and asks for, from now on."""
    seen = []
    page.on("console", lambda message: seen.append(f"console: {message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: seen.append(f"request: {request.url}") if not request.url.startswith("file:") else None)
    return seen


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def judge(browser, path, scheme, width, pictures):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=False)
    page = context.new_page()
    seen = watched(page)
    page.goto(path.as_uri())
    what = f"{scheme} {width}"
    for name in SECTIONS:
        title = page.locator(f"#{name}-title")
        assert title.is_visible() and page.locator(f"section#{name}").bounding_box()["height"] > 40, f"{what}: {name}"
        page.locator(f"nav a[href='#{name}']").click()
    assert page.locator("section#unread, h2#unread").count() == 1, f"{what}: what was not read is not said"
    assert page.locator("script, img, svg, iframe, link, object").count() == 0, f"{what}: markup of a cluster"
    assert overflow(page) <= 0, f"{what}: {overflow(page)} px too wide"
    # Texts of the fixture that try to be markup are read as they were written.
    assert "<script>fetch(" in page.locator("#violations").inner_text(), what
    assert page.title() == "Rampart: security posture" and page.locator("html").get_attribute("lang") == "en", what
    page.screenshot(path=pictures / f"{scheme}-{width}.png", full_page=True)
    assert not seen, f"{what}: {seen}"
    context.close()


def accessible(browser, path, scheme):
    # axe is a script, which the page itself refuses to run.
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(path.as_uri())
    result = Axe().run(page, options={"runOnly": {"type": "tag", "values": RULES}})
    assert result.violations_count == 0, result.generate_report()
    passed = len(result.response["passes"])
    assert passed > 20, f"axe looked at {passed} rules alone"
    context.close()
    return passed


def printed(browser, path):
    page = browser.new_page()
    page.goto(path.as_uri())
    pdf = page.pdf(format="A4", landscape=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 1040, "height": 720})
    assert overflow(page) <= 0, f"print: {overflow(page)} px too wide"
    assert not page.locator("nav").is_visible(), "links are printed"
    assert 1 < pages < 20, f"{pages} pages"
    page.close()
    return pages


def can_refuse(browser, path):
    """The judge sees a request, a script and an overflow where there is one."""
    page = browser.new_page(viewport={"width": 375, "height": 900})
    seen = watched(page)
    page.goto(path.as_uri())
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/x><p style=\"width: 900px; max-width: none\">wide</p>')")
    page.wait_for_function("document.querySelector('img').complete")
    # What a page says comes a moment later.
    end = time.monotonic() + 10
    while not any("Content Security Policy" in it for it in seen):
        assert time.monotonic() < end, f"nothing was seen: {seen}"
        page.wait_for_timeout(50)
    assert overflow(page) > 0, "no overflow was seen"
    page.close()


def main(rampart, chromium, fixture, pictures):
    pictures = pathlib.Path(pictures).resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    path = pictures / "report.html"
    html = told(rampart, fixture)
    path.write_text(html)
    assert "compliant" not in html.lower(), "it calls something compliant"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ["light", "dark"]:
            for width in WIDTHS:
                judge(browser, path, scheme, width, pictures)
        passed = [accessible(browser, path, scheme) for scheme in ["light", "dark"]]
        pages = printed(browser, path)
        can_refuse(browser, path)
        browser.close()
    print(f"report: {len(SECTIONS)} sections seen at {WIDTHS} px, light and dark; nothing fetched or run; "
          f"axe passed {min(passed)} rules; {pages} pages on paper")


main(*sys.argv[1:])
