/** Words of strangers in messages. Pure. */

/** In quotes, short, and with control characters escaped, so that no terminal obeys them. */
export function quoted(text: string, maxLength = 200): string {
  return JSON.stringify(text.slice(0, maxLength)).replace(/[\u007f-\u009f]/g, "?");
}
