import t from 'tap';
import { LocalRpcService } from '../../../../lib/rpc/local-rpc-service.js';
import { testRpcService } from '../../../conformance/rpc-service.js';

const service = new LocalRpcService();
testRpcService(t, {
  createServer: (env, options) => service.createServer(env, options),
  createConnector: (env, options) => service.createConnector(env, options),
});
