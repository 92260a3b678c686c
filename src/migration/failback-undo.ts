/** A disk that was to go back stays where it is. The order, and why: failback.ts. */
import { FailedError, PreconditionError } from "../lib/errors.ts";
import { migrationOf } from "../role/mod.ts";
import { type Context, observe } from "./context.ts";
import { requireBothHosts } from "./failback-check.ts";
import { releaseAt } from "./steps.ts";
import { destinationsOf, type DiskView, type View } from "./view.ts";

/** The hosts as the migration that goes back has them. */
export function turned(context: Context): Context {
  return { ...context, source: context.destination, destination: context.source };
}

/** Names the disk in the migration `backId` that goes back. */
export function backDiskOf(id: string, backId: string, diskId: string): string {
  return backId + diskId.slice(id.length);
}

/** The migration as which it goes back; undefined if it does not. */
export function backIdOf(view: View): string | undefined {
  const as = destinationsOf(view).find(({ goesBackAs }) => goesBackAs !== null)?.goesBackAs;
  return as == null ? undefined : migrationOf(as);
}

export interface UndoOptions {
  /** Also where nobody can tell whether it has gone back already, or the source has changed. */
  readonly isForced: boolean;
  /** The caller has begun it, and knows that it has not gone back. */
  readonly isSure: boolean;
}

/**
 * Undoes whatever was done to go back; the engines are left to whoever brings the migration up. False, and
 * nothing is changed, if it has gone back already.
 */
export async function undoFailback(context: Context, view: View, options: UndoOptions): Promise<boolean> {
  const backId = backIdOf(view);
  if (backId === undefined) return true;
  requireBothHosts(view);
  const back = await observe(turned(context), backId);
  requireBothHosts(back);
  if (destinationsOf(back).some(({ isActivated }) => isActivated)) return false;
  const disks = view.disks.filter(({ destination }) => destination?.goesBackAs != null);
  if (!options.isForced && !options.isSure) requireTraces(view.id, backId, disks);
  const { source, destination } = context;
  const ids = disks.map(({ id }) => ({ id, as: backDiskOf(view.id, backId, id) }));
  for (const { id } of ids) await destination.ask("destination.unfreeze", { id });
  for (const { as } of ids.toReversed()) await source.ask("destination.abort", { id: as, force: false });
  for (const { as } of ids) await releaseAt(destination, as, context);
  for (const disk of disks) await fenceAgain(context, disk, options.isForced);
  for (const { id } of ids) await destination.ask("destination.thaw", { id });
  return true;
}

/** While the old export is there, the disk has not gone back: that goes only after. */
function requireTraces(id: string, backId: string, disks: readonly DiskView[]): void {
  if (disks.every(({ source }) => source !== undefined)) return;
  throw new FailedError(`nobody can tell whether ${id} has gone back as ${backId}: its export is gone`, {
    hint: `if ${backId} was never used at the old source, dlsm resume ${id} --force goes on here`,
  });
}

/** What was not fetched is only at the source, and must be as it was left. */
async function fenceAgain({ source }: Context, disk: DiskView, isForced: boolean): Promise<void> {
  const { id, source: exported, destination: entry } = disk;
  if (exported?.state !== "exported") return;
  const isWhole = entry!.stored?.residentBytes === entry!.sizeBytes;
  const force = isForced || isWhole;
  try {
    await source.ask("source.fence", { id, force });
    const change = force ? null : await source.ask("source.changed", { id });
    if (change !== null) throw new PreconditionError(change);
  } catch (error) {
    if (!(error instanceof PreconditionError)) throw error;
    throw new FailedError(`${id} cannot go on here: ${error.message}`, {
      hint:
        `what was not fetched is only there; when that is mended, dlsm resume ${migrationOf(id)} goes on, ` +
        "with --force whatever the source holds now",
      cause: error,
    });
  }
}
