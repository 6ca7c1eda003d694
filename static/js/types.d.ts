/** What the page knows. The state is one plain object that is replaced, never altered: a view compares by identity. */

export type Status = "idle" | "connecting" | "streaming" | "reconnecting" | "done" | "failed" | "cancelled";

export interface Failure {
  error: string;
  code: string;
  phase?: string;
  retryable?: boolean;
}

/** How long a phase took. */
export interface Step {
  phase: string;
  ms: number;
}

export interface ToolCall {
  name: string;
  arguments: unknown;
}

export interface Figures {
  promptTokens: number;
  tokens: number;
  tokensPerSecond: number;
  firstTokenMs: number;
  reason: string;
}

/** Times are epoch ms; 0 is not yet. */
export interface Answer {
  id: string;
  model: string;
  status: Status;
  text: string;
  thinking: string;
  /** 0 while it still thinks */
  thinkingMs: number;
  /** the text so far is thoughts in tags that are still open */
  thinksInText: boolean;
  tools: ToolCall[];
  failure: Failure | null;
  figures: Figures | null;
  /** of its stream; "" until the gateway has made it */
  url: string;
  /** the last event that is in this answer */
  lastId: string;
  /** the settings that were in force, where they differ from none */
  sent: Partial<Settings>;
  /** characters of the turns that were sent */
  sentLength: number;
  startedAt: number;
  phase: string;
  /** in the queue */
  position: number;
  /** why it waits there; "" where it is not known */
  reason: string;
  /** when its turn will probably come; 0 where it is not known */
  dueAt: number;
  /** of the phase, from 0 to 1; 0 where it is not known */
  progress: number;
  phaseAt: number;
  /** the phases before this one */
  steps: Step[];
  thinkingAt: number;
  firstAt: number;
  lastAt: number;
  /** text pieces so far, about one token each */
  pieces: number;
  caughtUpAt: number;
}

export interface Image {
  id: string;
  /** a data: URL */
  url: string;
}

export interface TextFile {
  name: string;
  text: string;
}

/** A prompt with its answers, one for each "regenerate". */
export interface Turn {
  id: string;
  at: number;
  /** the turn it follows; "" for the first one */
  parent: string;
  /** when a person last wanted it rather than another turn with the same parent */
  chosen: number;
  prompt: string;
  images: Image[];
  files: TextFile[];
  answers: Answer[];
  /** index of the answer on display */
  shown: number;
  /** no longer sent to the model */
  omitted: boolean;
}

export interface Settings {
  system: string;
  preset: string;
  variables: Record<string, string>;
  think: string;
  temperature: number | null;
  num_ctx: number | null;
  num_predict: number | null;
  seed: number | null;
}

export interface Chat {
  id: string;
  title: string;
  renamed: boolean;
  created: number;
  updated: number;
  model: string;
  settings: Settings;
}

/** Where an answer is. */
export interface Place {
  chat: string;
  turn: string;
  id: string;
}

/** What came to an answer that has not ended; it begins at these lengths of its text and thoughts. */
export interface Piece extends Place {
  number: number;
  textAt: number;
  text: string;
  thinkingAt: number;
  thinking: string;
  patch: Partial<Answer>;
}

export interface Model {
  name: string;
  size: number;
  parameters?: string;
  quantization?: string;
  context_length?: number;
  loaded_context_length?: number;
  capabilities: string[];
  loaded: boolean;
  modified_at?: string;
}

export interface Preset {
  name: string;
  description: string;
  overrides: string[];
  variables: { name: string; description?: string; default?: string | null }[];
}

export interface Pull {
  model: string;
  status: string;
  layers: Record<string, [number, number]>;
  samples: [number, number][];
  failure: Failure | null;
  done: boolean;
}

/** Something a person is told in passing. */
export interface Notice {
  key: import("./strings.js").Key;
  vars?: Record<string, string | number>;
  undo?: () => void;
}

export interface State {
  /** newest first */
  chats: Chat[];
  /** the open one; not among `chats` until its first prompt */
  chat: Chat;
  /** of the chats that are in memory, all branches */
  turns: Record<string, Turn[]>;
  /** the answers that have not ended, in all tabs, by id */
  running: Record<string, Place>;
  /** bytes of the text files that wait for the prompt */
  attached: number;
  query: string;
  /** the chats that match `query` */
  found: Set<string> | null;
  models: Model[];
  defaultModel: string | null;
  allowPull: boolean;
  presets: Preset[];
  defaultPreset: string | null;
  presetsOnly: boolean;
  server: "unknown" | "ok" | "down";
  serverFailure: Failure | null;
  pull: Pull | null;
}
