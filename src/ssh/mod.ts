/** Other hosts by the system's ssh: a command there as a byte stream, and why it ended; copying dlsm there. */
export { connect, type SshConnection, type SshEnd, type SshOptions } from "./connection.ts";
export { deploy, type Deployed, type DeployOptions, SshFailedError } from "./deploy.ts";
export { checkDestination, type Errand, isDestination } from "./destination.ts";
export { explainEnd, explainLoss, type Problem, type ProblemKind } from "./explain.ts";
export { deployedHash, deployedRoleCommand, roleCommand } from "./remote-script.ts";
export { connectThrough } from "./forward.ts";
