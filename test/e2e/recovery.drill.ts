import { testDrills } from '../support/drill-test.js';

await testDrills(['cluster-kill', 'checkpoint-crash']);
