/** `dlsm doctor`: what hosts can do, what is missing, what was left behind. */
import { hostname } from "node:os";
import { defineCommand } from "citty";
import { examine, findingLine, type HostFinding, type Patient } from "../../doctor/mod.ts";
import { PreconditionError } from "../../lib/errors.ts";
import { ownFolders } from "../../lib/paths.ts";
import type { Reporter } from "../../report/mod.ts";
import { type Host, localHost, remoteHost } from "../../role/mod.ts";
import { jsonOption, withoutBrackets } from "../options.ts";
import { reporterFor } from "../session.ts";

export const doctor = defineCommand({
  meta: {
    name: "doctor",
    description:
      "What hosts can do, what is missing (then exit 3), what was left behind (exit 0 all the same)",
  },
  args: {
    "host…": {
      type: "positional",
      required: false,
      description:
        "Hosts as ssh names them, such as root@node1, and what is between them (default: this one)",
    },
    clean: {
      type: "boolean",
      description: "Remove what is provably left over: never a disk's data, nor what can be resumed",
    },
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const patients = await patientsOf([...new Set(args._.map(withoutBrackets))], reporter);
    try {
      const findings = await examine(patients, args.clean === true);
      report(reporter, patients, findings);
      refuseMissing(findings);
    } finally {
      await Promise.all(patients.map(({ host }) => host.close()));
    }
  },
});

async function patientsOf(names: readonly string[], reporter: Reporter): Promise<Patient[]> {
  if (names.length === 0) return [{ name: hostname(), host: await thisHost() }];
  return names.map((name) => ({
    name,
    host: remoteHost(name, { onLog: (line) => reporter.message("info", line) }),
  }));
}

/** With its folders as they are: whether they can be used is one of the questions. */
async function thisHost(): Promise<Host> {
  const { state, run } = ownFolders();
  return await localHost({ state: state.path, run: run.path });
}

function report(reporter: Reporter, patients: readonly Patient[], findings: readonly HostFinding[]): void {
  for (const { name } of patients) {
    for (const [at, finding] of findings.filter(({ host }) => host === name).entries()) {
      reporter.result({ json: finding, lines: [...(at === 0 ? [name] : []), findingLine(finding)] });
    }
  }
}

/** What is only left over, or good to know, keeps nobody from working: exit code 0. */
function refuseMissing(findings: readonly HostFinding[]): void {
  const needed = findings.filter(({ level }) => level === "missing");
  if (needed.length === 0) return;
  const list = needed.map(({ host, subject }) => host === subject ? host : `${subject} on ${host}`).join(
    ", ",
  );
  throw new PreconditionError(`something that is needed is missing or wrong: ${list}`, {
    hint: 'the lines that begin with "missing" say what to do',
  });
}
