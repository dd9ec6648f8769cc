/**
 * The links of a local cluster that go through fault proxies. Proxies live in the process that runs the drill; the
 * settings made here lead the cluster's processes to them.
 *
 * - `etcd`: every JobManager and TaskManager to every etcd member, each its own proxy
 * - `rpc`: whoever connects to a JobManager's control port (TaskManagers, and standbys that watch it)
 * - `etcd-peers`: every etcd member to every other
 */
import { MillraceError } from '../../lib/base/errors.js';
import { etcdMemberStatus, findFreePorts } from '../local/etcd-member.js';
import type { EtcdPorts } from '../local/cluster-state.js';
import { FaultProxy, type LinkMode } from './fault-proxy.js';

export type LinkKind = 'etcd' | 'rpc' | 'etcd-peers';

type Settings = Readonly<Record<string, string>>;

export interface LinkPlan {
  readonly jobManagers: readonly string[];
  readonly taskManagers: readonly string[];
  readonly etcdMembers: number;
}

/** rafthttp tells in a header which member speaks. */
const serverFrom = /X-Server-From: ([0-9a-f]+)\r\n/i;

export class ClusterLinks {
  readonly #proxies: FaultProxy[] = [];
  readonly #etcd = new Map<string, FaultProxy[]>();
  readonly #rpc = new Map<string, FaultProxy>();
  readonly #peers: FaultProxy[] = [];
  readonly #settings: Record<string, Record<string, string>> = {};
  #etcdPorts: readonly EtcdPorts[] = [];

  static async open(kinds: readonly LinkKind[], plan: LinkPlan): Promise<ClusterLinks> {
    const links = new ClusterLinks();
    try {
      const ports = await findFreePorts(2 * plan.etcdMembers + plan.jobManagers.length);
      const take = (): number => ports.pop() ?? 0;
      const members = Array.from({ length: plan.etcdMembers }, () => ({
        client: take(),
        peer: take(),
      }));
      links.#etcdPorts = members;
      if (kinds.includes('etcd-peers')) await links.#openPeers(members);
      if (kinds.includes('etcd'))
        for (const name of [...plan.jobManagers, ...plan.taskManagers])
          await links.#openEtcd(name, members);
      if (kinds.includes('rpc'))
        for (const name of plan.jobManagers) await links.#openRpc(name, take());
      return links;
    } catch (error) {
      await links.close();
      throw error;
    }
  }

  /** By process name. */
  get processSettings(): Readonly<Record<string, Settings>> {
    return this.#settings;
  }

  get etcdPorts(): readonly EtcdPorts[] {
    return this.#etcdPorts;
  }

  /** The proxies between a process and the etcd members, in their order. */
  etcdOf(process: string): readonly FaultProxy[] {
    return known(this.#etcd.get(process), 'etcd', process);
  }

  rpcOf(jobManager: string): FaultProxy {
    return known(this.#rpc.get(jobManager), 'rpc', jobManager);
  }

  /** All links of a process to etcd at once. */
  async setEtcd(process: string, mode: LinkMode): Promise<void> {
    await Promise.all(this.etcdOf(process).map((one) => one.set(mode)));
  }

  /** Cuts a member (index from 0) off from all other members, both ways; its clients still reach it. */
  async isolateMember(member: number, endpoints: readonly string[]): Promise<void> {
    known(this.#peers[member], 'etcd-peers', `member ${String(member)}`);
    const { memberId } = await etcdMemberStatus(endpoints[member] ?? '');
    const source = BigInt(memberId).toString(16);
    await Promise.all(
      this.#peers.map((one, i) =>
        i === member ? one.set('blackhole') : one.setFrom(source, 'blackhole'),
      ),
    );
  }

  /** Every link as it was. */
  async heal(): Promise<void> {
    for (const one of this.#proxies) {
      one.disarm();
      one.delay(0);
    }
    await Promise.all(this.#proxies.map((one) => one.set('pass')));
  }

  async close(): Promise<void> {
    await Promise.all(this.#proxies.map((one) => one.close()));
  }

  async #openPeers(members: EtcdPorts[]): Promise<void> {
    for (const [i, member] of members.entries()) {
      const proxy = await this.#open(member.peer, (bytes) => serverFrom.exec(bytes)?.[1]);
      this.#peers.push(proxy);
      members[i] = { ...member, advertisedPeer: proxy.port };
    }
  }

  async #openEtcd(name: string, members: readonly EtcdPorts[]): Promise<void> {
    const proxies: FaultProxy[] = [];
    for (const { client } of members) proxies.push(await this.#open(client));
    this.#etcd.set(name, proxies);
    this.#add(name, {
      'high-availability.etcd.endpoints': proxies
        .map(({ port }) => `http://127.0.0.1:${String(port)}`)
        .join(','),
    });
  }

  async #openRpc(name: string, port: number): Promise<void> {
    const proxy = await this.#open(port);
    this.#rpc.set(name, proxy);
    this.#add(name, {
      'jobmanager.rpc.port': String(proxy.port),
      'jobmanager.rpc.bind-port': String(port),
    });
  }

  async #open(port: number, sourceOf?: (bytes: string) => string | undefined): Promise<FaultProxy> {
    const proxy = await FaultProxy.listen(
      { host: '127.0.0.1', port },
      sourceOf === undefined ? {} : { sourceOf },
    );
    this.#proxies.push(proxy);
    return proxy;
  }

  #add(name: string, settings: Settings): void {
    this.#settings[name] = { ...this.#settings[name], ...settings };
  }
}

function known<T>(link: T | undefined, kind: LinkKind, of: string): T {
  if (link === undefined)
    throw new MillraceError('INVARIANT', `the drill did not ask for links '${kind}' (${of})`);
  return link;
}
