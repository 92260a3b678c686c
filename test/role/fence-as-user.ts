/** As another user: fences the given disk and says what could be had; then writes it, if it can, and says what is seen. */
import { closeSync, mkdirSync, openSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { SourceRole } from "../../src/role/source.ts";

const [folder, path] = process.argv.slice(2) as [string, string];
const folders = { state: join(folder, "state"), run: join(folder, "run") };
for (const each of Object.values(folders)) mkdirSync(each, { recursive: true, mode: 0o700 });
const id = "userfence";
const address = "127.0.0.1";
const role = () => new SourceRole(folders);
const danger = async () => (await role().list({}))[0]!.danger;
const modeOf = () => (statSync(path).mode & 0o7777).toString(8);

function openIfPossible(): number | null {
  try {
    return openSync(path, "r+");
  } catch {
    return null;
  }
}

await role().export({
  id,
  path,
  portal: { address, port: 0 },
  allow: address,
  destination: null,
  tunnel: null,
});
try {
  const writer = openIfPossible();
  const { kinds, notes } = await role().fence({ id, force: true });
  const mode = modeOf();
  const before = await danger();
  if (writer !== null) writeSync(writer, Buffer.alloc(512, "u"));
  const after = await danger();
  if (writer !== null) closeSync(writer);
  await role().unfence({ id });
  console.log(JSON.stringify({ kinds, notes, mode, before, after, restored: modeOf() }));
} finally {
  await role().release({ id, force: true });
}
