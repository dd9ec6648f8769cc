/** Clusters of real processes, started when first asked for; every sample gets TaskManager processes of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { LocalCluster } from '../../bin/local/local-cluster.js';
import type { RestClient } from '../../lib/rest/rest-client.js';
import { startCluster, waitFor, type BenchClusterOptions } from '../support.js';

/** `one`: one TaskManager with four slots. `two`: two with one slot each. `large`: `one` with much memory. */
export type Topology = 'one' | 'two' | 'large';

const one = { jobManagers: 1, etcdMembers: 1, taskManagers: 1, slots: 4 };
const topologies: Readonly<Record<Topology, BenchClusterOptions>> = {
  one,
  two: { ...one, taskManagers: 2, slots: 1 },
  large: { ...one, settings: { 'taskmanager.memory.slot.heap.size': '5g' } },
};

interface Running {
  readonly cluster: LocalCluster;
  readonly client: RestClient;
  isFresh: boolean;
}

export class BenchClusters {
  readonly #running = new Map<Topology, Running>();
  readonly #environment: Readonly<Record<string, string>>;

  /** `profileInto`: directory that gets a CPU profile of each TaskManager's main thread, when it ends. */
  constructor(profileInto?: string) {
    const preload = new URL('profile-process.js', import.meta.url).href;
    this.#environment =
      profileInto === undefined
        ? {}
        : { NODE_OPTIONS: `--import ${preload}`, BENCH_PROFILES: profileInto };
  }

  /** A client of the cluster; its TaskManagers have run nothing yet. */
  async fresh(topology: Topology): Promise<RestClient> {
    const known = this.#running.get(topology);
    const running = known ?? (await this.#start(topology));
    if (!running.isFresh) await this.#renewTaskManagers(running);
    running.isFresh = false;
    return running.client;
  }

  /** Stops everything; what is asked for later starts again. */
  async close(): Promise<void> {
    for (const { cluster, client } of this.#running.values()) {
      await client.close();
      await cluster.stop();
      cluster.remove();
    }
    this.#running.clear();
  }

  async #start(topology: Topology): Promise<Running> {
    const environment = this.#environment;
    const cluster = await startCluster({ ...topologies[topology], environment });
    const running = { cluster, client: cluster.restClient(), isFresh: true };
    this.#running.set(topology, running);
    return running;
  }

  async #renewTaskManagers({ cluster, client }: Running): Promise<void> {
    const names = cluster
      .processes()
      .filter(({ role }) => role === 'taskmanager')
      .map(({ name }) => name);
    for (const name of names) cluster.signal(name, 'SIGTERM');
    await waitFor('the end of the TaskManagers', 20_000, () =>
      Promise.resolve(names.every((name) => !aliveIn(cluster, name)) ? true : undefined),
    );
    await waitFor('the leader to notice', 20_000, async () =>
      (await client.overview()).taskmanagers === 0 ? true : undefined,
    );
    for (const name of names) await cluster.restart(name);
    await waitFor('the TaskManagers', 20_000, async () =>
      (await client.overview()).taskmanagers === names.length ? true : undefined,
    );
    // What a process does right after its start is not part of any figure.
    await sleep(200);
  }
}

function aliveIn(cluster: LocalCluster, name: string): boolean {
  return cluster.processes().some((one) => one.name === name && one.alive);
}
