/** What is run on another host to serve its roles. Pure. */

const script = [
  'PATH=$PATH:/usr/local/bin:"$HOME/.local/bin"',
  "exec dlsm role",
].join("; ");

/** For the login shell there, whichever it is: no newline, and nothing but plain characters inside the quotes. */
export function roleCommand(): string {
  return `exec sh -c '${script}'`;
}
