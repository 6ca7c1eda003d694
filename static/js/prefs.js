/** Small preferences of this browser, outside of the history. */

/** @param {string} key @param {unknown} value @param {"localStorage" | "sessionStorage"} [storage] */
export function remember(key, value, storage = "localStorage") {
  try {
    if (value === null) globalThis[storage].removeItem(`gateway.${key}`);
    else globalThis[storage].setItem(`gateway.${key}`, JSON.stringify(value));
  } catch {
    // Storage is off: the preference lasts as long as the page.
  }
}

/** @param {string} key @param {"localStorage" | "sessionStorage"} [storage] @returns {any} */
export function recall(key, storage = "localStorage") {
  try {
    return JSON.parse(globalThis[storage].getItem(`gateway.${key}`) ?? "null");
  } catch {
    return null;
  }
}
