import t from 'tap';
import { createEtcdHighAvailability } from '../../ha/etcd/create-etcd-high-availability.js';
import type { JobManagerId } from '../../lib/base/ids.js';
import { TestEtcd } from '../support/etcd.js';
import { RecordingContender } from '../support/recording-contender.js';
import { testEnv } from '../support/test-env.js';

t.test(
  'every member of etcd is told with its health, and the queue with its standbys',
  async (t) => {
    const etcd = await TestEtcd.start(t, { members: 3 });
    const ha = await createEtcdHighAvailability(testEnv(), {
      endpoints: etcd.endpoints,
      clusterId: 'health',
    });
    t.teardown(() => ha.close());
    const healthy = await ha.storeHealth!();
    t.same(
      healthy.map(({ endpoint }) => endpoint),
      etcd.endpoints,
    );
    for (const member of healthy) {
      t.match(member, {
        isHealthy: true,
        alarms: [],
        version: /^\d+\.\d+\.\d+$/,
        memberId: /^\d+$/,
      });
      t.ok(member.dbSizeBytes > 0 && member.dbSizeInUseBytes <= member.dbSizeBytes);
      t.equal(member.error, undefined);
    }
    t.equal(healthy.filter(({ isLeader }) => isLeader).length, 1);

    const hung = await etcd.follower();
    hung.pause();
    const [gone] = (await ha.storeHealth!()).filter(({ isHealthy }) => !isHealthy);
    hung.resume();
    t.match(gone, { endpoint: hung.endpoint, isHealthy: false, version: '' });
    t.match(gone?.error, /does not answer in time/);

    t.same(ha.candidates(), []);
    const contenders: RecordingContender[] = [];
    for (const name of ['a', 'b']) {
      const election = ha.createElection({
        jobManagerId: name as JobManagerId,
        rpcAddress: `${name}:1`,
        restAddress: `http://${name}:2`,
      });
      const contender = new RecordingContender();
      election.start(contender);
      contenders.push(contender);
      t.teardown(() => election.close());
      if (name === 'a') await contender.leads();
    }
    const leadership = contenders[0]!.current!;
    const slack = leadership.leaseSlackMs();
    t.ok(slack > 0 && slack <= 3_000, String(slack));
    while (ha.candidates().length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    t.match(ha.candidates(), [
      { jobManagerId: 'a', rpcAddress: 'a:1', restAddress: 'http://a:2', epoch: leadership.epoch },
      { jobManagerId: 'b' },
    ]);
  },
);
