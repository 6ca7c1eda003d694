/** What people attach: pictures, made fit for a model, and text files. Their bytes decide what they are. */

/** @import { TextFile } from "./types.js" */

const MAX_PIXELS = 2048;
/** Characters of a text file: more than the context of most models. */
const MAX_TEXT = 400_000;
/** Beginnings of files that browsers can draw; `ftyp` is AVIF and HEIC. */
const PICTURES = [/^\x89PNG/, /^\xff\xd8\xff/, /^GIF8/, /^RIFF.{4}WEBP/s, /^BM/, /^.{4}ftyp/s];
/** Ollama reads these as they are. */
const PLAIN = [/^\x89PNG/, /^\xff\xd8\xff/];

/** @param {Blob} file */
async function beginning(file) {
  return String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
}

/** @param {Blob} file */
export async function isPicture(file) {
  const bytes = await beginning(file);
  return PICTURES.some((pattern) => pattern.test(bytes));
}

/**
 * A picture as a data: URL, no larger than a vision model looks at: a phone's photo would fill the request.
 * @param {Blob} file @returns {Promise<string>} rejects what is none
 */
export async function readPicture(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, MAX_PIXELS / Math.max(bitmap.width, bitmap.height));
  const bytes = await beginning(file);
  if (scale === 1 && PLAIN.some((pattern) => pattern.test(bytes))) {
    bitmap.close();
    return readAsUrl(new Blob([file], { type: bytes.startsWith("\x89") ? "image/png" : "image/jpeg" }));
  }
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  // JPEG has no transparency: what was clear would become black, and black writing on it would be gone.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.9);
}

/** @param {File} file @returns {Promise<TextFile | "binary" | "large">} */
export async function readText(file) {
  if (file.size > MAX_TEXT * 4) return "large";
  const bytes = new Uint8Array(await file.arrayBuffer());
  const utf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
  try {
    const label = utf16 ? (bytes[0] === 0xff ? "utf-16le" : "utf-16be") : "utf-8";
    const text = new TextDecoder(label, { fatal: true }).decode(bytes);
    if (text.includes("\0")) return "binary";
    return text.length > MAX_TEXT ? "large" : { name: file.name, text: text.replaceAll("\r\n", "\n") };
  } catch {
    return "binary";
  }
}

/** @param {Blob} file @returns {Promise<string>} */
function readAsUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/**
 * The files of a paste, unless it is text that comes with a picture of itself, as from Excel and Word. A file
 * manager gives the names of the files as text.
 * @param {DataTransfer | null} data @returns {File[]}
 */
export function pasted(data) {
  const files = [...(data?.files ?? [])];
  const text = data?.getData("text/plain").trim() ?? "";
  const names = text.split(/\r?\n/).map((line) => line.split("/").at(-1));
  return !text || files.every(({ name }) => names.includes(name)) ? files : [];
}
