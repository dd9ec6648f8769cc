/** What a job author's tests import: `import { ... } from 'millrace/testing'`. */
export { ManualClock } from './manual-clock.js';
export {
  OperatorTestHarness,
  restoreOf,
  type HarnessOptions,
  type HarnessOutput,
} from './operator-test-harness.js';
