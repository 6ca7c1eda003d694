/** A model that is being downloaded. Pure. */

/** @import { Pull } from "./types.js" */

/** @param {string} model @returns {Pull} */
export const newPull = (model) => ({ model, status: "", layers: {}, samples: [], failure: null, done: false });

/**
 * Download progress over all layers: one layer's percentage jumps back whenever the next one begins.
 * @param {Pull} pull @param {any} line @param {number} now @returns {Pull}
 */
export function reducePull(pull, line, now) {
  const next = { ...pull, status: line.status ?? pull.status, done: line.status === "success" };
  if (!line.digest) return next;
  next.layers = { ...pull.layers, [line.digest]: [line.completed ?? 0, line.total ?? 0] };
  const { completed } = pullTotals(next);
  // A few seconds of samples: a speed that neither jumps nor remembers a stalled start.
  next.samples = [...pull.samples.filter(([at]) => now - at < 5_000), [now, completed]];
  return next;
}

/** @param {Pull} pull */
export function pullTotals(pull) {
  let completed = 0;
  let total = 0;
  for (const [have, all] of Object.values(pull.layers)) {
    completed += have;
    total += all;
  }
  const [from, to] = [pull.samples[0], pull.samples.at(-1)];
  const speed = from && to && to[0] > from[0] ? ((to[1] - from[1]) * 1000) / (to[0] - from[0]) : 0;
  return { completed, total, speed, remainingMs: speed > 0 ? ((total - completed) / speed) * 1000 : 0 };
}
