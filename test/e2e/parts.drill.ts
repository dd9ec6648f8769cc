import { testDrills } from '../support/drill-test.js';

await testDrills(['taskmanager-kill', 'etcd-outage']);
