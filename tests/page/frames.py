"""The page's frames while an answer of 200 tokens a second streams, on a CPU six times slower than this one.

python -m tests.page.frames [RUNS]
"""

import asyncio
import sys
from pathlib import Path
from statistics import median, quantiles

from playwright.async_api import expect

from tests.gateways import gateway
from tests.page.pages import chromium, visiting
from tests.page.parrot import Parrot
from tests.servers import serve

ANSWER = (Path(__file__).parent / "answer.md").read_text() * 4
RATE = 200
SLOWER = 6

OBSERVE = """() => {
  window.gaps = [];
  let before = performance.now();
  const frame = (now) => {
    window.gaps.push(now - before);
    before = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""

DONE = """() => new Promise((resolve) => {
  const look = () => (document.querySelector('.turn[data-status="done"]') ? resolve() : setTimeout(look, 200));
  look();
})"""
"""Playwright's own way to wait reads the whole page again and again, which takes more time than the page itself."""


async def frames() -> list[float]:
    """The milliseconds of each frame, from the question to the answer's end."""
    async with (
        serve(Parrot(ANSWER, rate=RATE)) as ollama,
        gateway(ollama) as gw,
        chromium() as browser,
        visiting(browser) as visits,
    ):
        visit = await visits.open(gw.url)
        await expect(visit.page.locator("#model")).to_contain_text("llama3.2")
        session = await visit.page.context.new_cdp_session(visit.page)
        await session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        await visit.page.evaluate(OBSERVE)
        await visit.ask("Go on")
        await visit.page.evaluate(DONE)
        return list(await visit.page.evaluate("window.gaps"))


async def main() -> None:
    runs = [await frames() for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)]
    print("milliseconds of a frame: median, p95, p99, worst")
    for each in runs:
        print(
            *(f"{of:7.1f}" for of in (median(each), quantiles(each, n=20)[-1], quantiles(each, n=100)[-1], max(each)))
        )


if __name__ == "__main__":
    asyncio.run(main())
