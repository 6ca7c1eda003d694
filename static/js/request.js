/** What is sent for a turn, and how much of the context that fills. Pure. */
import { RESUME_WINDOW, shownAnswer } from "./state.js";

/** @import { Chat, Model, Preset, State, Turn } from "./types.js" */

/**
 * Whether a chat with this preset may set a field itself; without a preset it may set everything.
 * @param {Preset | undefined} preset @param {string} field `system`, `think`, or an option as `options.NAME`
 */
export const mayOverride = (preset, field) =>
  !preset || preset.overrides.some((name) => name === field || field.startsWith(`${name}.`));

/** The preset in force. @param {State} state @param {Chat} chat */
export const presetOf = ({ presets, defaultPreset, presetsOnly }, chat) =>
  presets.find((preset) => preset.name === (chat.settings.preset || defaultPreset)) ??
  (presetsOnly ? presets[0] : undefined);

/**
 * The body of `POST /api/streams` for the last of these turns: everything before it that is not omitted, then it. What the
 * preset decides is left out: the gateway would refuse it.
 * @param {Chat} chat @param {Turn[]} turns @param {Turn} turn @param {string} model @param {string[]} capabilities
 * @param {Preset} [inForce]
 */
export function requestFor(chat, turns, turn, model, capabilities, inForce) {
  const { system, preset, variables, think, ...options } = chat.settings;
  const may = (/** @type {string} */ field) => mayOverride(inForce, field);
  /** @type {{role: string, content: string, images?: string[], tool_calls?: unknown[]}[]} */
  const messages = system.trim() && may("system") ? [{ role: "system", content: system }] : [];
  for (const past of turns) {
    if (past !== turn && past.omitted) continue;
    const images =
      capabilities.includes("vision") || !may("model")
        ? past.images.map(({ url }) => url.slice(url.indexOf(",") + 1))
        : [];
    messages.push({ role: "user", content: textOf(past), ...(images.length ? { images } : {}) });
    if (past === turn) break;
    const answer = shownAnswer(past);
    if (!answer || !(answer.text || answer.tools.length)) continue;
    const calls = answer.tools.map((call) => ({ function: call }));
    messages.push({ role: "assistant", content: answer.text, ...(calls.length ? { tool_calls: calls } : {}) });
  }
  // Without a value the preset's own stands; one that the preset has no more would be refused.
  const given = Object.entries(variables).filter(
    ([name, value]) => value && inForce?.variables.some((variable) => variable.name === name),
  );
  const set = Object.entries(options).filter(([name, value]) => value !== null && may(`options.${name}`));
  /** @type {Record<string, unknown>} */
  const body = may("model") ? { model, messages } : { messages };
  if (set.length) body.options = Object.fromEntries(set);
  if (think && may("think") && capabilities.includes("thinking"))
    body.think = think === "on" ? true : think === "off" ? false : think;
  return {
    chat: body,
    ...(inForce ? { preset: inForce.name, variables: Object.fromEntries(given) } : preset ? { preset } : {}),
    resume_window: RESUME_WINDOW,
  };
}

/** A prompt with its text files, each in a fence that is longer than any inside of it. @param {Turn} turn */
export function textOf({ prompt, files }) {
  const parts = files.map(({ name, text }) => {
    const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), ([ticks]) => ticks.length));
    const fence = "`".repeat(longest + 1);
    return `${name}:\n${fence}\n${text}\n${fence}`;
  });
  return [...parts, prompt].filter(Boolean).join("\n\n");
}

/** Characters of the turns that go to the model; a stand-in for tokens where only a ratio is wanted.
 * @param {Turn[]} turns */
export const lengthOf = (turns) =>
  turns.reduce(
    (sum, turn) => sum + (turn.omitted ? 0 : textOf(turn).length + (shownAnswer(turn)?.text.length ?? 0)),
    0,
  );

/**
 * How full the context is for the next prompt, or null where that is not known. Ollama counted the last
 * answer's tokens; turns that were dropped or deleted since then take their share of it away.
 * @param {Chat} chat @param {Turn[]} turns @param {Model | undefined} model
 * @param {number} [attached]  bytes of text files that wait for the prompt; about four of them are a token
 */
export function contextUse(chat, turns, model, attached = 0) {
  const limit = chat.settings.num_ctx ?? model?.loaded_context_length ?? model?.context_length;
  const answer = turns.map(shownAnswer).findLast((past) => past?.figures?.promptTokens);
  if (!limit || !(answer || attached)) return null;
  const { promptTokens = 0, tokens = 0 } = answer?.figures ?? {};
  const share = answer ? Math.min(1, lengthOf(turns) / (answer.sentLength + answer.text.length || 1)) : 0;
  const used = Math.round((promptTokens + tokens) * share + attached / 4);
  return { used, limit, share: Math.min(1, used / limit) };
}

/** Leave out the oldest turns until half of the text is left; the last turn always stays. @param {Turn[]} turns */
export function dropOldest(turns) {
  const goal = lengthOf(turns) / 2;
  let left = lengthOf(turns);
  return turns.map((turn, i) => {
    if (turn.omitted || left <= goal || i === turns.length - 1) return turn;
    left -= lengthOf([turn]);
    return { ...turn, omitted: true };
  });
}
