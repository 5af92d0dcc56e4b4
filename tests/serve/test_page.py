"""The page at `/`: its files for all, and what it does in a browser, where there is one."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from browsers import open_browser, resize, until
from specimens import Goldens

from foveal import Service, SessionStore, load
from foveal.runtime.model import Model
from foveal.serve.app import create_app
from foveal.serve.measurements import Measurements
from foveal.serve.page import HEADERS, page_files
from foveal.serve.served import Served
from foveal.serve.settings import ServeSettings

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FOLDER = Path(__file__).parent.parent.parent / "serve" / "page"
PROMPT, SLOTS = "It was", 4
CONTROLS = ("input", "select", "textarea", "button")
IN_PLACE = re.compile(
    r'="(https?:)?//|url\(|@import|\bimport\(|innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\sstyle="'
)


class Pace(Measurements):
    """Of a service: the real one, or one that waits after each step."""

    seconds = 0.0

    def stepped(self, seconds: float, texts: int) -> None:
        super().stepped(seconds, texts)
        time.sleep(self.seconds)


class Faults:
    """ASGI, around an application: answers the next generation itself, if there is something prepared.

    Attributes:
        prepared: a status and headers; or bytes of a stream that breaks off.
        asked: the last generation that was asked for.
    """

    def __init__(self, app: Any) -> None:
        self.app, self.prepared, self.asked = app, None, None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/completions":
            return await self.app(scope, receive, send)
        if self.prepared is None:
            return await self.app(scope, receive, send)
        (status, headers, body, breaks_off), self.prepared = self.prepared, None
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": breaks_off})
        return None

    def refuse(self, status: int, message: str, **headers: str) -> None:
        """Prepare an error."""
        found = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.prepared = (status, found, json.dumps({"error": {"message": message}}).encode(), False)

    def stream(self, chunk: dict[str, Any], breaks_off: bool = False) -> None:
        """Prepare a stream of one chunk, which ends without a word, or breaks off."""
        data = f"data: {json.dumps(chunk)}\n\n".encode()
        self.prepared = (200, [(b"content-type", b"text/event-stream")], data, breaks_off)


class Site:
    """A server on a port of its own, and what is behind it."""

    def __init__(self, model: Model, service: Service, pace: Pace) -> None:
        self.model, self.service, self.pace = model, service, pace
        self.faults = Faults(None)

    @contextmanager
    def serve(self, **settings: Any) -> Iterator[str]:
        """Its address, as long as it is served."""
        app = create_app({"tiny": Served("tiny", self.model, self.service, self.pace)}, ServeSettings(**settings))
        self.faults = Faults(app)
        server = uvicorn.Server(uvicorn.Config(self.faults, "127.0.0.1", 0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            until(lambda: server.started, "the server starts")
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()

    def text(self, prompt: str, **settings: Any) -> str:
        """What the API gives."""
        return "".join(event.text for event in self.service.submit(prompt, **settings))


@pytest.fixture(scope="module")
def site(goldens: Goldens) -> Iterator[Site]:
    """A model of bytes with strides 1, 2 and 8, and 96 positions."""
    model = load(goldens["nested_2_4_naive_attn"], threads=1)
    pace = Pace(model.specs)
    with (
        SessionStore(model, 1 << 26) as store,
        Service(model, slots=SLOTS, queue=2, store=store, observer=pace) as service,
    ):
        yield Site(model, service, pace)


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    """Of a server that asks for no token."""
    with site.serve() as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """One for all tests."""
    with open_browser() as browser:
        yield browser


class Page:
    """What a person does with the page, and finds there."""

    def __init__(self, browser: Chrome) -> None:
        self.browser, self.run = browser, browser.execute_script

    def find(self, name: str) -> Any:
        """An element by its id."""
        return self.browser.find_element("id", name)

    def text(self, name: str) -> str:
        """Of an element, hidden or not."""
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))

    def fill(self, **fields: object) -> None:
        """Fields by their ids."""
        for name, value in fields.items():
            field = self.find(name.replace("_", "-"))
            field.clear()
            field.send_keys(str(value))

    def unfold(self, name: str) -> None:
        """Open details by their ids."""
        self.browser.find_element("css selector", f"#{name} > summary").click()

    def generate(self) -> None:
        """Press the button, and wait for the end."""
        self.find("generate").click()
        self.wait()

    @property
    def is_busy(self) -> bool:
        """Whether it generates."""
        return bool(self.find("stop").is_enabled())

    def wait(self) -> None:
        """For the end."""
        until(lambda: not self.is_busy, "the generation ends")

    @property
    def given(self) -> str:
        """What the model wrote last."""
        return str(self.run("return [...document.querySelectorAll('.given')].at(-1).textContent"))

    @property
    def overflow(self) -> int:
        """CSS pixels by which the page is wider than its window."""
        return int(self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    @property
    def focused(self) -> str:
        """The id of what has the focus."""
        return str(self.run("return document.activeElement.id"))


@pytest.fixture
def page(site: Site, address: str, browser: Chrome) -> Iterator[Page]:
    """Freshly opened, in a usual window; no test leaves errors in the console but those that it names."""
    resize(browser, 1280, 900)
    browser.get(address)
    page = Page(browser)
    until(lambda: page.find("model").is_enabled(), "the models are there")
    yield page
    site.pace.seconds, site.faults.prepared = 0.0, None
    noise = [entry["message"] for entry in browser.get_log("browser") if "the server responded with" not in entry["message"]]
    assert [line for line in noise if "net::ERR" not in line] == []


# Files.


def fetch(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """What a server answers: status, headers, body."""
    request = urllib.request.Request(address.rstrip("/") + path, method=method, headers=headers)
    connection = http.client.HTTPConnection(request.host, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_all_files_come_with_headers_that_let_nothing_else_in(address: str) -> None:
    """Scripts, styles and requests of its own origin alone; types that are not guessed; nobody frames it."""
    files = page_files()
    assert {"/", "/page/page.css", "/page/page.js", "/page/icon.svg"} < set(files)
    for path, file in files.items():
        status, headers, body = fetch(address, path)
        assert (status, body, headers["content-type"]) == (200, file.content, file.media_type)
        assert {name: headers[name.lower()] for name in HEADERS} == HEADERS
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


def test_a_file_that_did_not_change_is_not_sent_again(address: str) -> None:
    """By its tag, also as a proxy or a browser may write that; a HEAD has headers alone."""
    tag = page_files()["/page/page.js"].etag
    for given in (tag, f"W/{tag}", f'"other", {tag}'):
        status, headers, body = fetch(address, "/page/page.js", **{"If-None-Match": given})
        assert (status, headers["etag"], body) == (304, tag, b"")
    assert fetch(address, "/page/page.js", **{"If-None-Match": '"other"'})[0] == 200
    status, headers, body = fetch(address, "/", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


def test_nothing_else_is_served(address: str) -> None:
    """Neither the folder's other files, nor others by tricks with paths."""
    for path in ("/page/__init__.py", "/page/", "/page/../app.py", "/page/%2e%2e/app.py", "/page//page.js", "/index.html"):
        assert fetch(address, path)[0] == 404, path


def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup() -> None:
    """No address of another machine, no script or style in place, nothing that parses text."""
    for file in page_files().values():
        text = file.content.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert IN_PLACE.findall(text) == []
    markup = page_files()["/"].content.decode()
    assert re.findall(r"<script[^>]*>[^<]+</script>|<style|\son\w+=", markup) == []


class Markup(HTMLParser):
    """Ids, labels and controls of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.labelled: set[str | None] = set()
        self._open_label = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append((tag, found))
        if tag == "label":
            self._open_label = True
            self.labelled.add(found.get("for"))
        elif self._open_label and tag in CONTROLS:
            self.labelled.add(found.get("id"))

    def handle_endtag(self, tag: str) -> None:
        self._open_label = self._open_label and tag != "label"


def test_every_control_has_a_label_and_the_page_its_landmarks() -> None:
    """A language, one main heading, regions with names, and no two elements of one id."""
    markup = Markup(page_files()["/"].content.decode())
    tags = [tag for tag, _ in markup.tags]
    for tag, attributes in markup.tags:
        assert tag not in ("input", "select", "textarea") or attributes.get("id") in markup.labelled, attributes
        assert tag not in ("section", "form") or attributes.get("aria-labelledby"), attributes
    assert [tags.count(tag) for tag in ("main", "header", "h1", "title")] == [1, 1, 1, 1]
    assert dict(markup.tags)["html"] == {"lang": "en"}
    ids = [attributes["id"] for _, attributes in markup.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = [
        name
        for _, attributes in markup.tags
        for attribute in ("aria-labelledby", "aria-describedby", "for")
        for name in (attributes.get(attribute) or "").split()
    ]
    assert set(references) <= set(ids)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in markup.tags


def test_scripts_find_what_they_name() -> None:
    """Every module that is imported, every element that is asked for, every colour that is drawn with."""
    files = {path: file.content.decode() for path, file in page_files().items()}
    ids = set(re.findall(r'\sid="([^"]+)"', files["/"]))
    scripts = {path: text for path, text in files.items() if path.endswith(".js")}
    for text in scripts.values():
        assert {f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)} <= set(scripts)
    assert set(re.findall(r'\$\("([^"]+)"\)', scripts["/page/page.js"])) <= ids
    assert set(re.findall(r': "([a-z]+(?:-[a-z]+)*)",', scripts["/page/settings.js"])) <= ids
    assert all(f"--scale-{index}:" in files["/page/page.css"] for index in range(6))


def test_scripts_parse() -> None:
    """As modules, by node, if it is there."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no node to parse scripts with; the browser's tests run them")
    parse = (
        "const { readFileSync } = require('fs'), { SourceTextModule } = require('vm');"
        "for (const file of process.argv.slice(1)) new SourceTextModule(readFileSync(file, 'utf8'), { identifier: file });"
    )
    command = [node, "--experimental-vm-modules", "--no-warnings", "-e", parse, *map(str, sorted(FOLDER.glob("*.js")))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# In a browser.


def test_a_text_streams_and_is_the_one_of_its_seed(site: Site, page: Page) -> None:
    """Prompt and text stand apart, and the text is what the API gives for all of the settings."""
    values: dict[str, float] = {
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
        "top_k": 40,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
    }
    page.unfold("more")
    page.fill(prompt=PROMPT, max_tokens=40, stop_texts="never\\n", **values)
    page.generate()
    assert page.given == site.text(PROMPT, max_new_tokens=40, **values)
    assert page.run("return document.querySelector('.prompt').textContent") == PROMPT
    assert page.text("phase") == "Done: token limit reached."
    assert page.text("figure-tokens") == "40"
    for name in ("figure-rate", "figure-first", "figure-median", "figure-tail"):
        assert re.match(r"[\d.]+( ms)?$", page.text(name)), name


def test_the_timeline_has_a_mark_wherever_a_stage_fired(site: Site, page: Page) -> None:
    """Pixel by pixel, row by row; the table, the counts and the summary say the same in words."""
    page.fill(prompt=PROMPT, max_tokens=40, temperature=0)
    page.generate()
    events = list(site.service.submit(PROMPT, max_new_tokens=40, temperature=0))
    names = page.run("return [...document.querySelectorAll('#rows b')].map((one) => one.textContent)")
    assert names == ["8", "2.pre", "2.post", "1.pre", "1.post"]
    until(lambda: page.text("timeline-summary").startswith("40 tokens"), "the summary is there")
    drawn = page.run(
        """const canvas = document.getElementById("canvas"), size = 9;
        const {data, width} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const rows = [...document.querySelectorAll("#rows li")];
        const top = rows[0].getBoundingClientRect().top;
        return rows.map((row) => {
          const box = row.getBoundingClientRect();
          const y = Math.round(box.top - top + box.height / 2) + 4;  // beside the line along the middle
          return Array.from({length: 40}, (_, index) => data[4 * (y * width + index * size + 4) + 3] > 0);
        });"""
    )
    assert drawn == [[name in event.fired for event in events] for name in names]
    counts = {name: sum(name in event.fired for event in events) for name in names}
    assert page.text("rows") == "".join(f"{name}every {name.split('.')[0]}×{count}" for name, count in counts.items())
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    assert page.text("timeline-summary").startswith(f"40 tokens. Firings: {said}. Median step: ")
    page.unfold("table-details")
    in_table = "return document.querySelectorAll('#table-body tr').length"
    until(lambda: page.run(in_table) == len(events), "the table is filled, which is after it was unfolded")
    rows = page.run(
        """const rows = [...document.querySelectorAll("#table-body tr")];
        return rows.map((row) => [row.cells[0].textContent, row.cells[2].textContent]);"""
    )
    assert rows == [[str(event.position), ", ".join(name for name in names if name in event.fired)] for event in events]


def test_a_stop_frees_the_slot(site: Site, page: Page) -> None:
    """The gauge shows it busy, then free; what came stays."""
    site.pace.seconds = 0.05
    page.fill(prompt=PROMPT, max_tokens=90, temperature=0)
    page.find("generate").click()
    until(lambda: page.text("gauge-text").startswith(f"1 of {SLOTS} slots busy"), "the gauge shows a busy slot")
    until(lambda: page.given, "text comes")
    assert not page.find("generate").is_enabled()
    page.find("stop").click()
    until(lambda: site.service.statistics.running == 0, "the slot is free")
    page.wait()
    assert re.fullmatch(r"Stopped after \d+ tokens\.", page.text("phase"))
    until(lambda: page.text("gauge-text").startswith(f"0 of {SLOTS} slots busy"), "the gauge shows all free")
    site.pace.seconds = 0.0
    assert site.text(PROMPT, max_new_tokens=90, temperature=0).startswith(page.given)


def test_it_works_by_keyboard_alone(site: Site, page: Page) -> None:
    """From the skip link on; Control and Enter generate, Escape stops, arrows go through the timeline."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        chain = ActionChains(page.browser)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    press(Keys.TAB)
    assert page.run("return document.activeElement.className") == "skip"
    press(Keys.TAB, Keys.TAB)
    assert page.focused == "prompt"
    ActionChains(page.browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(PROMPT).perform()
    site.pace.seconds = 0.05
    ActionChains(page.browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    until(lambda: page.given, "text comes")
    press(Keys.ESCAPE)
    page.wait()
    site.pace.seconds = 0.0
    press(Keys.TAB)
    assert page.focused == "generate"
    press(Keys.ENTER)
    page.wait()
    assert page.focused == "generate"
    count = int(page.text("figure-tokens"))
    for _ in range(20):
        press(Keys.TAB)
        if page.focused == "scroller":
            break
    scroller = page.find("scroller")
    assert scroller.get_attribute("aria-valuenow") == str(count - 1)
    press(Keys.HOME)
    assert re.fullmatch(
        r".+, position \d+, fired (8, )?(2.pre, 2.post, )?1.pre, 1.post, [\d.]+ ms since the request",
        scroller.get_attribute("aria-valuetext"),
    )
    press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert scroller.get_attribute("aria-valuenow") == "2"
    assert page.text("readout").endswith("ms")
    press(Keys.END)
    assert scroller.get_attribute("aria-valuenow") == str(count - 1)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (
            lambda faults: faults.refuse(429, "it holds 4 texts", Retry_After="7"),
            "The server is full. Try again in 7 seconds. It holds 4 texts.",
        ),
        (lambda faults: faults.refuse(503, "it is shutting down"), "The server takes no requests now. It is shutting down."),
        (lambda faults: faults.refuse(500, "its log says why"), "The server failed (500). Its log says why."),
        (
            lambda faults: faults.stream({"choices": [{"text": "so far"}]}, breaks_off=True),
            "The connection broke off before the text ended; what came is kept here.",
        ),
        (
            lambda faults: faults.stream({"choices": [{"text": "so far"}]}),
            "The connection broke off before the text ended; what came is kept here.",
        ),
        (
            lambda faults: faults.stream({"error": {"message": "the engines failed"}}),
            "The server ended the text: The engines failed.",
        ),
    ],
    ids=["429", "503", "500", "broken off", "ended early", "error in the stream"],
)
def test_failures_are_told_in_words(site: Site, page: Page, prepare: Callable[[Faults], None], said: str) -> None:
    """In a region that is read out at once; the page goes on."""
    prepare(site.faults)
    page.generate()
    assert page.find("alert").get_attribute("role") == "alert"
    assert page.text("alert") == said
    page.fill(prompt=PROMPT, max_tokens=4)
    page.generate()
    assert (page.text("alert"), page.text("figure-tokens")) == ("", "4")


def test_what_can_not_be_asked_for_is_told_in_words(page: Page) -> None:
    """By the page, at the field; or by the server."""
    page.fill(prompt="")
    page.generate()
    assert page.text("alert") == "The prompt is empty, and these models need at least one token."
    page.fill(prompt=PROMPT, top_p="1.5")
    page.generate()
    assert page.text("alert") == "Top-p must be a number, at least 0 and at most 1."
    assert (page.focused, page.find("top-p").get_attribute("aria-invalid")) == ("top-p", "true")
    page.fill(prompt="x" * 97, top_p="1")
    page.generate()
    assert page.text("alert").startswith("The server refused the request. The prompt has 97 tokens")


def test_a_server_that_is_gone_is_told_in_words(site: Site, browser: Chrome) -> None:
    """And the gauge says it, too."""
    with site.serve() as address:
        browser.get(address)
        page = Page(browser)
        until(lambda: page.find("model").is_enabled(), "the models are there")
    page.generate()
    assert page.text("alert") == "The server can't be reached. Is it running, and this device connected?"
    until(lambda: page.text("gauge-text") == "Server can't be reached", "the gauge says so")
    browser.get_log("browser")


def test_a_token_is_asked_for_and_kept_for_the_tab_alone(site: Site, browser: Chrome) -> None:
    """The field is opened and has the focus; the token is in no storage that lasts."""
    with site.serve(tokens=["right"]) as address:
        browser.get(address)
        page = Page(browser)
        until(lambda: page.text("alert"), "it says that a token is missing")
        assert page.text("alert").startswith("The server asks for another access token than it got.")
        assert page.focused == "token"
        until(lambda: page.text("gauge-text") == "Needs an access token", "the gauge says so")
        page.find("token").send_keys("right\n")
        until(lambda: page.find("model").is_enabled(), "the models are there")
        assert (page.text("alert"), page.text("output")) == ("", "")
        page.fill(prompt=PROMPT, max_tokens=4)
        page.generate()
        assert (page.text("alert"), page.text("figure-tokens")) == ("", "4")
        kept = "return [sessionStorage.length, localStorage.length, document.cookie, location.search]"
        assert page.run(kept) == [1, 0, "", ""]
        browser.refresh()
        until(lambda: page.find("model").is_enabled(), "it is there again")
        page.unfold("access")
        page.find("token-forget").click()
        assert page.run(kept)[0] == 0
        browser.get_log("browser")


def test_a_session_goes_on_where_it_stood(site: Site, page: Page) -> None:
    """Two prompts make one text; a stop leaves it where it stood; one that is lost can be begun anew with all of the text."""
    page.find("session").click()
    page.fill(prompt=PROMPT, max_tokens=10, temperature=0)
    page.generate()
    first = page.given
    assert re.fullmatch(r"It stands at \d+ tokens\.", page.text("session-text"))
    page.fill(prompt=" and", max_tokens=8)
    page.generate()
    assert page.run("return [...document.querySelectorAll('.turn')].map((turn) => turn.textContent).join('')") == (
        f"{PROMPT}{first} and{page.given}"
    )
    stands = page.text("session-text")

    site.pace.seconds = 0.05
    page.fill(prompt=" but", max_tokens=60)
    page.find("generate").click()
    until(lambda: page.given, "text comes")
    page.find("stop").click()
    page.wait()
    site.pace.seconds = 0.0
    assert page.text("phase").endswith("The session stands where it stood.")
    assert page.text("session-text") == stands
    assert page.find("prompt").get_attribute("value") == " but"

    assert site.service.sessions.store is not None
    site.service.sessions.store.clear()
    page.fill(max_tokens=4)
    page.generate()
    assert page.text("alert").startswith("The session can't go on.")
    page.find("resend").click()
    page.wait()
    assert page.text("alert") == ""
    assert page.run("return document.querySelector('.prompt').textContent").startswith(f"{PROMPT}{first}")


@pytest.mark.parametrize("width", [320, 360, 640])
def test_nothing_is_wider_than_a_narrow_window(page: Page, width: int) -> None:
    """A phone, or a desktop at a zoom of 200 or 400 %; the timeline scrolls in a frame of its own."""
    resize(page.browser, width, 700)
    page.fill(prompt="Anextraordinarilylongwordwithoutanyspaceforalinetobebrokenat", max_tokens=30, seed=1)
    for name in ("more", "access", "table-details"):
        page.run("document.getElementById(arguments[0]).open = true", name)
    assert page.overflow == 0
    page.generate()
    assert page.overflow == 0


def test_text_stays_text(page: Page) -> None:
    """Whatever a prompt holds."""
    prompt = "<img src=x onerror=alert(1)>"
    page.fill(prompt=prompt, max_tokens=2)
    page.generate()
    assert page.run(
        "return [document.querySelector('.prompt').textContent, document.querySelectorAll('#output img').length]"
    ) == [
        prompt,
        0,
    ]


def test_a_long_text_costs_no_more_to_draw_than_a_short_one(page: Page) -> None:
    """With 2,000 tokens as many columns are drawn as are in sight."""
    drawn = page.browser.execute_async_script(
        """const [done] = arguments;
        import("/page/timeline.js").then(({ Timeline }) => {
          const find = (id) => document.getElementById(id);
          const timeline = new Timeline({
            scroller: find("scroller"), spacer: find("spacer"), canvas: find("canvas"), rows: find("rows"),
            axisTop: find("axis-top"), axisMiddle: find("axis-middle"), legend: find("legend"), readout: find("readout"),
            summary: find("timeline-summary"), body: find("table-body"), details: find("table-details"),
          }, () => {});
          timeline.begin([{name: "1", stride: 1}, {name: "8", stride: 8}]);
          let fills = 0;
          const pen = find("canvas").getContext("2d"), fill = pen.fillRect.bind(pen);
          pen.fillRect = (...box) => { fills += 1; fill(...box); };
          const count = (tokens) => {
            for (let at = timeline.length; at < tokens; at += 1) {
              timeline.add({position: at, text: "x", fired: at % 8 ? ["1"] : ["1", "8"], seconds: 0.001});
            }
            fills = 0;
            timeline.draw();
            return fills;
          };
          const found = [count(400), count(2000)];
          delete pen.fillRect;
          done(found);
        });"""
    )
    assert 0 < drawn[1] <= 1.1 * drawn[0]


def test_a_session_behind_several_servers_says_where_it_is(site: Site, browser: Chrome) -> None:
    """Its requests have the header by which they are routed, as `/status` names it."""
    with site.serve(session_header="x-session-id") as address:
        browser.get(address)
        page = Page(browser)
        until(lambda: page.find("model").is_enabled(), "the models are there")
        store = site.service.sessions.store
        assert store is not None
        store.clear()
        page.find("session").click()
        for prompt in (PROMPT, " and"):
            page.fill(prompt=prompt, max_tokens=4)
            page.generate()
            assert page.text("alert") == ""
        assert len(store) == 1
        page.find("session-new").click()
        until(lambda: not len(store), "the session is dropped")
