/** Other hosts by the system's ssh: a command there as a byte stream, and why it ended. */
export { connect, type SshConnection, type SshEnd, type SshOptions } from "./connection.ts";
export { checkDestination, type Errand } from "./destination.ts";
export { explainEnd, type Problem, type ProblemKind } from "./explain.ts";
export { connectThrough } from "./forward.ts";
