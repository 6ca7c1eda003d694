/** A reader of text that grows: they follow its end until they scroll up. */

/** Nearer to the end than this counts as reading along. */
const NEAR_PX = 60;

export class Following {
  #scroller;
  #changed;
  #on = true;
  #top = 0;

  /** @param {Element} scroller @param {(on: boolean) => void} [changed] */
  constructor(scroller, changed = () => {}) {
    this.#scroller = scroller;
    this.#changed = changed;
    scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    // Said at once: between a small step upwards and its scroll event, text that grows would take the view down again.
    scroller.addEventListener("wheel", (event) => this.#onWheel(/** @type {WheelEvent} */ (event)), { passive: true });
  }

  /** Go to the end and stay there. */
  start() {
    this.#on = true;
    this.stay();
  }

  /** Stay where they are, as if they had scrolled up. */
  stop() {
    this.#on = false;
  }

  /** As if they had scrolled to where they are. */
  resume() {
    if (this.#left() < NEAR_PX) this.start();
  }

  #left() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** The end may have moved: go there, if the reader follows it. */
  stay() {
    if (this.#on) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#top = this.#scroller.scrollTop;
    this.#changed(this.#on);
  }

  #onScroll() {
    const { scrollTop } = this.#scroller;
    const left = this.#left();
    // Every move upwards is the reader's wish, however small, unless the text became shorter under them.
    if (scrollTop < this.#top && left > 1) this.#on = false;
    else if (scrollTop > this.#top && left < NEAR_PX) this.#on = true;
    this.#top = scrollTop;
    this.#changed(this.#on);
  }

  /** @param {WheelEvent} event */
  #onWheel(event) {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    if (event.deltaY >= 0 || scrollTop <= 0 || scrollHeight <= clientHeight) return;
    this.stop();
    // What is around it does not move with it.
    event.stopPropagation();
  }
}
