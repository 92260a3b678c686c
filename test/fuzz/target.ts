/**
 * A fuzz target: one decoder, how inputs for it are made, and what must hold of each of them.
 *
 * An input's check throws if the decoder misbehaved (another error than it declares, a result that contradicts
 * itself, …); otherwise it says whether the input was accepted. Both must happen often enough, or the target
 * fails: a generator that only ever makes rubbish tests nothing but the first check of the decoder.
 */
import fc from "fast-check";
import { plain } from "./expect.ts";

export type Verdict = "accepted" | "refused";

export interface Spec<Input> {
  /** Unique, in kebab-case: what `--only` takes. */
  readonly name: string;
  readonly inputs: fc.Arbitrary<Input>;
  check(input: Input): Verdict | Promise<Verdict>;
  /** Inputs that once broke the decoder; they are checked before all others. */
  readonly regressions?: readonly Input[];
  /** Inputs in the default run; as many as fit in about a third of a second. */
  readonly runs: number;
  /** Over this, three times in a row, an input's cost is out of proportion. Default 2 s; most take microseconds. */
  readonly slowMs?: number;
  /** Least share of each verdict, 0 to 1. Default 5 %. */
  readonly atLeast?: Readonly<Record<Verdict, number>>;
}

export interface Options {
  readonly seed: number;
  /** A failure's, to check that one input again. */
  readonly path?: string;
  /** Default: the target's own number of them. */
  readonly runs?: number;
  /** Ends after the input that is under way then. */
  readonly timeLimitMs?: number;
  /** Called before each input, with its number, from 1. */
  onInput?(number: number): void;
}

export interface Failure {
  readonly seed: number;
  /** As fast-check counts; undefined for a regression. */
  readonly path: string | undefined;
  readonly message: string;
}

export interface Report {
  readonly executions: number;
  readonly verdicts: Readonly<Record<Verdict, number>>;
  readonly slowestMs: number;
  readonly failure: Failure | undefined;
}

export interface Target {
  readonly name: string;
  readonly atLeast: Readonly<Record<Verdict, number>>;
  fuzz(options: Options): Promise<Report>;
}

const defaultShare = 0.05;
const defaultSlowMs = 2000;

export function target<Input>(spec: Spec<Input>): Target {
  return {
    name: spec.name,
    atLeast: spec.atLeast ?? { accepted: defaultShare, refused: defaultShare },
    fuzz: (options) => fuzz(spec, options),
  };
}

async function fuzz<Input>(spec: Spec<Input>, options: Options): Promise<Report> {
  const verdicts = { accepted: 0, refused: 0 };
  let executions = 0;
  let slowestMs = 0;
  const check = async (input: Input) => {
    executions++;
    options.onInput?.(executions);
    const { verdict, tookMs } = await timed(spec, input);
    verdicts[verdict]++;
    slowestMs = Math.max(slowestMs, tookMs);
  };
  const report = (failure?: Failure): Report => ({ executions, verdicts, slowestMs, failure });

  if (options.path === undefined) {
    for (const input of spec.regressions ?? []) {
      try {
        await check(input);
      } catch (error) {
        const message = `a regression: ${textOf(error)}\ninput: ${shown(input)}`;
        return report({ seed: options.seed, path: undefined, message });
      }
    }
    executions = verdicts.accepted = verdicts.refused = 0;
  }
  const details = await fc.check(fc.asyncProperty(spec.inputs, check), {
    seed: options.seed,
    numRuns: options.runs ?? spec.runs,
    ...(options.path === undefined ? {} : { path: options.path }),
    ...(options.timeLimitMs === undefined ? {} : { interruptAfterTimeLimit: options.timeLimitMs }),
  });
  if (details.counterexamplePath === null) return report();
  const message = `${textOf(details.errorInstance)}\ninput: ${shown(details.counterexample?.[0])}`;
  return report({ seed: options.seed, path: details.counterexamplePath, message });
}

/** Checks an input; one that is slow is checked again, because the machine may have been. */
async function timed<Input>(
  spec: Spec<Input>,
  input: Input,
): Promise<{ readonly verdict: Verdict; readonly tookMs: number }> {
  for (let attempt = 1;; attempt++) {
    const startedAt = performance.now();
    const verdict = await spec.check(input);
    const tookMs = performance.now() - startedAt;
    if (tookMs < (spec.slowMs ?? defaultSlowMs)) return { verdict, tookMs };
    if (attempt === 3) throw new Error(`it takes ${Math.round(tookMs)} ms, again and again`);
  }
}

const maxShown = 4000;

function shown(input: unknown): string {
  const text = fc.stringify(plain(input));
  return text.length > maxShown ? `${text.slice(0, maxShown)}…` : text;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.stack ?? error.message : String(error);
}

/** Which verdict came too rarely, in words; undefined if none did. */
export function oneSided(
  { atLeast }: Pick<Target, "atLeast">,
  { executions, verdicts }: Report,
): string | undefined {
  for (const verdict of ["accepted", "refused"] as const) {
    const needed = Math.max(1, Math.floor(atLeast[verdict] * executions));
    if (atLeast[verdict] > 0 && verdicts[verdict] < needed) {
      return `only ${verdicts[verdict]} of ${executions} inputs were ${verdict}, at least ${needed} must be`;
    }
  }
  return undefined;
}

/** A seed that the environment asks for: a number, "random", or none. */
export function seedOf(wanted: string | undefined, fixed: number): number {
  if (wanted === undefined || wanted === "") return fixed;
  const seed = wanted === "random" ? Math.floor(Math.random() * 2 ** 31) : Number(wanted);
  if (!Number.isInteger(seed)) throw new Error(`DLSM_SEED is ${wanted}, neither a whole number nor random`);
  return seed;
}

/** How to check one failing input again. */
export function replayCommand(name: string, { seed, path }: Pick<Failure, "seed" | "path">): string {
  return `npm run fuzz -- --only ${name} --seed ${seed}${path === undefined ? "" : ` --path ${path}`}`;
}
