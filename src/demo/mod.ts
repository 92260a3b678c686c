/** The door of the demo. */
export { type DemoOptions, type DemoResult, runDemo } from "./demo.ts";
export { summaryOf } from "./summary.ts";
