/**
 * Records a second through a chain in one slot and through a keyed exchange, in one TaskManager and
 * across two. Whole jobs on real processes; the variants take turns, so that the machine's noise hits all.
 *
 *   npm run bench -- throughput [--rounds 3] [--records 2000000]
 */
import { parseArgs } from 'node:util';
import type { RestClient } from '../lib/rest/rest-client.js';
import { formatSpread, spread, submit, waitFor, withCluster, type BenchJob } from './support.js';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    records: { type: 'string', default: '2000000' },
  },
  allowPositionals: true,
});
const rounds = Number(options.rounds);
const records = Number(options.records);

/** A chain is so much faster that it needs more records to last. */
const chainFactor = 10;

/** From all tasks RUNNING to FINISHED, the final checkpoint included. */
async function recordsPerSecond(client: RestClient, job: BenchJob): Promise<number> {
  const count = job.job === 'chain' ? records * chainFactor : records;
  const jobId = await submit(client, {
    ...job,
    args: [String(count)],
    settings: { 'execution.checkpointing.interval': '10 s' },
  });
  const done = await waitFor(`the end of ${job.job}`, 300_000, async () => {
    const details = await client.job(jobId);
    if (details.state === 'FAILED')
      throw new Error(`bench job failed: ${JSON.stringify(await client.exceptions(jobId))}`);
    return details.state === 'FINISHED' ? details : undefined;
  });
  const elapsed = done.timestamps.FINISHED - done.timestamps.RUNNING;
  return count / (elapsed / 1000);
}

const variants = ['chain', 'exchange in one TaskManager', 'exchange across two'] as const;
const rates: Record<(typeof variants)[number], number[]> = {
  chain: [],
  'exchange in one TaskManager': [],
  'exchange across two': [],
};

await withCluster({ jobManagers: 1, etcdMembers: 1, taskManagers: 1, slots: 2 }, async (one) =>
  withCluster({ jobManagers: 1, etcdMembers: 1, taskManagers: 2, slots: 1 }, async (two) => {
    const [oneClient, twoClient] = [one.restClient(), two.restClient()];
    for (let round = 0; round <= rounds; round += 1) {
      const chain = await recordsPerSecond(oneClient, { job: 'chain', parallelism: 1 });
      const local = await recordsPerSecond(oneClient, { job: 'exchange', parallelism: 2 });
      const remote = await recordsPerSecond(twoClient, { job: 'exchange', parallelism: 2 });
      console.error(
        `round ${String(round)}${round === 0 ? ' (warm-up)' : ''}: chain ${chain.toFixed(0)}, one TaskManager ${local.toFixed(0)}, two ${remote.toFixed(0)} records/s`,
      );
      if (round === 0) continue;
      rates.chain.push(chain);
      rates['exchange in one TaskManager'].push(local);
      rates['exchange across two'].push(remote);
    }
    await Promise.all([oneClient.close(), twoClient.close()]);
  }),
);

const base = spread(rates.chain).median;
for (const variant of variants) {
  const seen = spread(rates[variant]);
  console.log(
    `${variant.padEnd(28)} ${formatSpread(seen, 'records/s')}, ${(seen.median / base).toFixed(2)} x chain`,
  );
}
