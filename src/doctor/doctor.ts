/** Examines hosts: each by itself, then what is between them. */
import { DlsmError } from "../lib/errors.ts";
import { type Finding, type Host, isUnreachable } from "../role/mod.ts";
import { askBetween, askClock, type Reached } from "./between.ts";
import { orphanedExports } from "./exports.ts";
import { type HostFinding, of } from "./finding.ts";

export interface Patient {
  /** As it is named for people. */
  readonly name: string;
  readonly host: Host;
}

/**
 * All that was found, host by host in the given order. A host that cannot be asked is a finding, and the
 * others are examined all the same. `isCleaning`: what is provably left over is removed first.
 */
export async function examine(patients: readonly Patient[], isCleaning: boolean): Promise<HostFinding[]> {
  const findings: HostFinding[] = [];
  const reached: Reached[] = [];
  // One after the other: ssh may have something to ask.
  for (const { name, host } of patients) {
    try {
      reached.push({ name, host, facts: await host.facts() });
    } catch (error) {
      findings.push(of(name, cannotAsk(name, error)));
    }
  }
  const each = await Promise.all([
    ...reached.map((one) => examineOne(one, isCleaning)),
    ...reached.map((one) => safely(one, () => askClock(one))),
    ...reached.map((one) =>
      safely(one, () => askBetween(one, reached.filter((other) => other !== one), patients))
    ),
  ]);
  findings.push(...each.flat(), ...await orphanedExports(reached));
  const order = new Map(patients.map(({ name }, at) => [name, at]));
  return findings.sort((left, right) => order.get(left.host)! - order.get(right.host)!);
}

function examineOne(one: Reached, isCleaning: boolean): Promise<HostFinding[]> {
  const { name, host } = one;
  return safely(one, async () => {
    const cleaned = isCleaning ? await host.ask("host.clean", {}) : [];
    const found = await host.ask("host.survey", {});
    const gone = cleaned.filter(({ isGone }) => isGone).map(({ finding, outcome }) =>
      of(name, finding, outcome)
    );
    const failed = cleaned.filter(({ isGone }) => !isGone);
    return [
      ...found.map((finding) => {
        const why = failed.find(({ finding: { subject } }) => subject === finding.subject)?.outcome;
        if (why === undefined) return of(name, finding);
        return of(name, { ...finding, message: `${finding.message}; it could not be removed: ${why}` });
      }),
      ...gone,
    ];
  });
}

/** A host that fails half-way does not keep the others from being examined. */
async function safely({ name }: Reached, ask: () => Promise<HostFinding[]>): Promise<HostFinding[]> {
  try {
    return await ask();
  } catch (error) {
    return [of(name, cannotAsk(name, error))];
  }
}

function cannotAsk(name: string, error: unknown): Finding {
  if (!(error instanceof DlsmError)) throw error;
  return {
    check: isUnreachable(error) ? "reach" : "survey",
    level: "missing",
    subject: name,
    message: error.message,
    remedy: error.hint ?? "mend that, and try again",
    cleanable: false,
  };
}
