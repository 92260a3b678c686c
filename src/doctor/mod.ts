/** The door of the doctor: looks hosts over, each by itself and together. */
export { examine, type Patient } from "./doctor.ts";
export { findingLine, type HostFinding } from "./finding.ts";
