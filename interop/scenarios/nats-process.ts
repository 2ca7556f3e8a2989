/** A real nats-server for a scenario. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { type Deployment, type Managed } from '../deployment.ts'
import { until } from '../../test/until.ts'

/** Starts nats-server with JetStream in a folder of the deployment, again at the same port when asked. */
export async function startNats(deployment: Deployment, port: number, label = 'nats'): Promise<Managed> {
  if (spawnSync('nats-server', ['--version']).error !== undefined) throw new Error('nats-server is not installed (Debian: nats-server)')
  const nats = deployment.spawn(label, 'nats-server', ['-a', '127.0.0.1', '-p', port, '-js', '-sd', join(deployment.folder, 'nats')])
  await until('nats-server is ready', () => nats.log().includes('Server is ready'))
  return nats
}
