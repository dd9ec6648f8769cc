/** millrace drill: rehearse failures on clusters of their own, or on one that runs, with a verdict. */
import type { Command } from 'commander';
import type * as Actions from '../drills/drill-actions.js';

/** With clients and packages that no other command needs. */
const actions = (): Promise<typeof Actions> => import('../drills/drill-actions.js');

export function registerDrill(program: Command): void {
  const drill = program
    .command('drill')
    .description('rehearse failures: a local cluster, the access-log job, a fault, a verdict');
  drill
    .command('list')
    .description('the drills, what each does to the cluster, and what must hold')
    .option('--json', 'print one JSON document')
    .action(async (options: { readonly json?: boolean }) => {
      (await actions()).listDrills(options);
    });
  drill
    .command('run')
    .description('run drills, each on a fresh cluster of its own; exit code 1 when one fails')
    .argument('[names...]', "which drills, see 'millrace drill list'")
    .option('--all', 'all drills')
    .option('--on <cluster>', 'on this running local cluster instead; asks before it does anything')
    .option('-y, --yes', 'do not ask')
    .option(
      '--soak [limit]',
      'the long variants, in so many rounds (5) or for so long (30min); prints p50, p99 and worst (default: 10 rounds)',
    )
    .option('--random <rounds>', 'instead: so many rounds of random faults on one cluster')
    .option('--seed <n>', 'seed of the random faults (default: by the clock)')
    .option('--rate <n>', "lines a second of the job (default: each drill's own)")
    .option('--report <file>', 'write a Markdown report with all timelines')
    .option('--keep', "keep the clusters' folders (default: those of drills that fail)")
    .option('--dir <folder>', 'folder of local clusters', '.millrace')
    .option('--json', 'print one JSON document')
    .action(async (names: readonly string[], options: Actions.DrillRunOptions) => {
      await (await actions()).runDrills(names, options);
    });
}
