/**
 * The scripts that are run on another host, as one argument of ssh. They are constants but for a hash, which
 * is hexadecimal: nothing that somebody typed is in them.
 *
 * ssh hands its argument to the login shell there, which may be any: so there is no newline in it, and the
 * script proper is for sh, in single quotes, without any quote, exclamation mark or backslash inside that
 * another shell could see.
 *
 * Pure.
 */

/** Where `--deploy` puts dlsm, under its hash: a folder of the user's. */
const folder = "dir=${XDG_CACHE_HOME:-$HOME/.cache}/dlsm/bin";
const nameOf = (sha256: string) => `dlsm-${sha256.slice(0, 16)}`;

/** What a line of the deploying script's answer begins with; a login script may say other things before it. */
export const answerMark = "dlsm-deploy:";

/** The hash in the name of a program that was deployed, 16 digits; undefined for others. */
export function deployedHash(programPath: string): string | undefined {
  return /\/dlsm\/bin\/dlsm-([0-9a-f]{16})$/.exec(programPath)?.[1];
}

/** Serves the roles with the dlsm that was deployed under this hash, and no other. */
export function deployedRoleCommand(sha256: string): string {
  return shellCommand([folder, `exec "$dir/${nameOf(checked(sha256))}" role`]);
}

/**
 * Serves the roles with: the deployed dlsm of the hash `like` if there is one (this program was deployed
 * itself, together with that one), else `dlsm` as installed, else the one that was deployed last.
 */
export function roleCommand(like?: string): string {
  const same = like === undefined ? [] : [`same="$dir/${nameOf(checked(like))}"`];
  const preferred = like === undefined ? [] : ['if [ -x "$same" ]; then exec "$same" role; fi'];
  return shellCommand([
    folder,
    ...same,
    ...preferred,
    // Where install.sh puts it; commands run over ssh may have a shorter PATH than people.
    'PATH="$PATH:/usr/local/bin:$HOME/.local/bin"',
    "if command -v dlsm >/dev/null; then exec dlsm role; fi",
    "newest=",
    'for each in "$dir"/dlsm-*; do ' +
    'if [ -x "$each" ] && { [ -z "$newest" ] || [ "$each" -nt "$newest" ]; }; then newest=$each; fi; done',
    'if [ -n "$newest" ]; then exec "$newest" role; fi',
    "exec dlsm role",
  ]);
}

/**
 * Puts dlsm in its place: answers `have` if it is there; else `send`, reads it compressed from stdin, checks
 * it, tries it, renames it, and answers `done`. Other answers: `machine WHAT-IT-IS`, `missing PROGRAM`,
 * `damaged`, `start WHAT-IT-SAID`, `failed` (stderr says why). A deployed dlsm that was not used for a week,
 * and that no process runs, is removed.
 *
 * `machine` as `uname -sm` says it.
 */
export function deployCommand(sha256: string, machine: "Linux x86_64" | "Linux aarch64"): string {
  const hash = checked(sha256);
  const isRight = (file: string) => `[ "$(sha256sum <"${file}")" = "${hash}  -" ]`;
  return shellCommand([
    "umask 077",
    folder,
    `file="$dir/${nameOf(hash)}"`,
    `answer() { echo "${answerMark} $*"; }`,
    "give_up() { answer failed; exit 0; }",
    "machine=$(uname -sm)",
    `[ "$machine" = "${machine}" ] || { answer machine "$machine"; exit 0; }`,
    "for program in gzip sha256sum mktemp; do " +
    'command -v "$program" >/dev/null || { answer missing "$program"; exit 0; }; done',
    `if [ -x "$file" ] && ${isRight("$file")}; then touch "$file"; answer have; exit 0; fi`,
    'mkdir -p "$dir" || give_up',
    'new=$(mktemp "$dir/.new.XXXXXXXX") || give_up',
    'clean_up() { rm -f "$new"; }',
    "trap clean_up EXIT",
    'trap "exit 1" HUP INT TERM PIPE',
    "answer send",
    'gzip -dc >"$new" || give_up',
    `${isRight("$new")} || { answer damaged; exit 0; }`,
    'chmod 755 "$new" || give_up',
    'said=$("$new" --version 2>&1) || { answer start "$said"; exit 0; }',
    'sync "$new" 2>/dev/null || sync',
    'mv -f "$new" "$file" || give_up',
    'for old in $(cd "$dir" && find . -name "dlsm-*" -mtime +7; find . -name ".new.*" -mtime +1); do ' +
    'ls -l /proc/[0-9]*/exe 2>/dev/null | grep -qF "${old#./}" || rm -f "$dir/$old"; done',
    "answer done",
  ]);
}

function shellCommand(lines: readonly string[]): string {
  return `exec sh -c '${lines.join("; ")}'`;
}

function checked(hash: string): string {
  if (!/^(?:[0-9a-f]{16}|[0-9a-f]{64})$/.test(hash)) throw new TypeError(`no hash: ${hash}`);
  return hash;
}
