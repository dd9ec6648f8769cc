import { testDrills } from '../support/drill-test.js';

await testDrills(['leader-kill', 'leader-late-writes']);
