/** Thrown in a process that was killed: nobody sees it. */
export class Killed extends Error {}

/** Never settles: what a process waits for that was killed. */
export const forever = new Promise<never>(() => {});

/** Who has files open. */
export interface Owner {
  readonly pid: number;
  readonly isDead: boolean;
}
