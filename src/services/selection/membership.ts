/** Registered workers and the partitions they make up; one writer. */
import type { RouterSettings } from '../../router/contract.ts'
import type { RouterEvent } from '../../model/kv-event.ts'
import type { DumpedPartition } from '../peer-dump.ts'
import { parksRequests } from '../../queue/policy-profile.ts'
import { failure, type Answer } from '../answer.ts'
import { compareKeys, keyName, keyText, type PartitionKey } from '../partition-key.ts'
import type { EventSources } from '../event-sources.ts'
import { Partition, type PartitionParts } from './partition.ts'
import { addressProblem, descriptionOf, missingOf, sizeProblem, type WorkerRecord } from './worker-record.ts'

/** Most models and routing groups. A further one is not schedulable. */
export const partitionsMax = 1024
/** Most registered workers. A further one is refused. */
export const workersMax = 65_536

export interface MembershipOptions extends PartitionParts {
  settingsFor(key: PartitionKey, blockSize: number, isEagle: boolean): RouterSettings
  /** Null: caches are assumed, engines are not followed. */
  readonly events: EventSources | null
}

/** Most events of a peer's index that wait for their workers. */
const recoveredEventsMax = 4_194_304

export class Membership {
  readonly #options: MembershipOptions
  /** What a peer's index said of workers that are not registered yet, by partition and worker. */
  readonly #recovered = new Map<string, RouterEvent[]>()
  readonly #records = new Map<bigint, WorkerRecord>()
  readonly #partitions = new Map<string, Partition>()

  constructor(options: MembershipOptions) {
    this.#options = options
  }

  get workerCount(): number {
    return this.#records.size
  }

  get partitions(): Partition[] {
    return [...this.#partitions.values()].sort((a, b) => compareKeys(a.key, b.key))
  }

  get schedulableCount(): number {
    let count = 0
    for (const { lifecycle } of this.#records.values()) if (lifecycle === 'schedulable') count += 1
    return count
  }

  record(workerId: bigint): WorkerRecord | undefined {
    return this.#records.get(workerId)
  }

  /** By partition, then id. */
  get records(): WorkerRecord[] {
    return [...this.#records.values()].sort((a, b) => compareKeys(a.key, b.key) || (a.workerId < b.workerId ? -1 : 1))
  }

  partition(key: PartitionKey): Partition | undefined {
    return this.#partitions.get(keyText(key))
  }

  /** A partition with workers, or the answer where there is none. */
  ready(key: PartitionKey): Partition | Answer {
    const partition = this.partition(key)
    if (partition !== undefined && partition.router.workerCount > 0) return partition
    return failure(503, this.schedulableCount === 0 ? 'no schedulable workers are available' : `no schedulable workers for ${keyName(key)}`)
  }

  /** Registers a worker, or a changed one. The answer: what is wrong with the request as such. */
  set(given: WorkerRecord): WorkerRecord | Answer {
    const problem = sizeProblem(given)
    if (problem !== null) return failure(400, problem)
    const before = this.#records.get(given.workerId)
    if (before === undefined && this.#records.size >= workersMax) return failure(503, `${workersMax} workers are registered, the limit; delete some`)
    const reasons = this.#reasons(given)
    const record: WorkerRecord = { ...given, reasons, lifecycle: reasons.length === 0 ? 'schedulable' : 'incomplete' }
    const stays = record.lifecycle === 'schedulable' && before?.lifecycle === 'schedulable' && keyText(before.key) === keyText(record.key)
    if (before?.lifecycle === 'schedulable' && !stays) this.#leave(before)
    this.#records.set(record.workerId, record)
    if (record.lifecycle === 'schedulable') {
      const partition = this.partition(record.key)!
      partition.router.upsertWorker(descriptionOf(record))
      this.#applyRecovered(partition, record.workerId)
      this.#options.events?.follow(record, partition.blockSize, (event) => void partition.router.applyEvent(event), (rank) => partition.router.resetRank(rank))
    }
    return record
  }

  /** Keeps a peer's index until its workers are registered here. */
  recover(partitions: readonly DumpedPartition[]): void {
    let left = recoveredEventsMax
    for (const { key, blockSize, events } of partitions) {
      for (const event of events) {
        if (left <= 0) return
        left -= 1
        const id = recoveredId(key, blockSize, event.workerId)
        const waiting = this.#recovered.get(id)
        if (waiting === undefined) this.#recovered.set(id, [event])
        else waiting.push(event)
      }
    }
  }

  #applyRecovered({ key, blockSize, router }: Partition, workerId: bigint): void {
    if (this.#recovered.size === 0) return
    const id = recoveredId(key, blockSize, workerId)
    for (const event of this.#recovered.get(id) ?? []) router.applyEvent(event)
    this.#recovered.delete(id)
  }

  delete(workerId: bigint): WorkerRecord | null {
    const record = this.#records.get(workerId)
    if (record === undefined) return null
    if (record.lifecycle === 'schedulable') this.#leave(record)
    this.#records.delete(workerId)
    return { ...record, lifecycle: 'unschedulable', reasons: [] }
  }

  #leave(record: WorkerRecord): void {
    this.#options.events?.leave(record.workerId)
    this.partition(record.key)?.router.removeWorker(record.workerId)
  }

  #reasons(record: WorkerRecord): string[] {
    const { settingsFor, events } = this.#options
    const { queue } = settingsFor(record.key, record.blockSize ?? 1, false)
    const missing = missingOf(record, queue !== undefined && parksRequests(queue.profile), events !== null)
    if (missing.length > 0) return missing
    const problem = this.#ensurePartition(record) ?? (events === null ? null : addressProblem(record))
    return problem === null ? [] : [`reconciliation failed: ${problem}`]
  }

  /** What keeps the worker from its partition; null: nothing, and there is one. */
  #ensurePartition({ key, blockSize, isEagle }: WorkerRecord): string | null {
    const eagle = isEagle ?? false
    const size = blockSize!
    const partition = this.partition(key)
    if (partition === undefined) {
      if (this.#partitions.size >= partitionsMax) return `${partitionsMax} partitions exist, the limit; use fewer models or routing groups`
      this.#partitions.set(keyText(key), new Partition(key, this.#options.settingsFor(key, size, eagle), this.#options))
      return null
    }
    if (partition.blockSize !== size) return `block_size mismatch for ${keyName(key)}: existing=${partition.blockSize} requested=${size}`
    return partition.isEagle === eagle ? null : `is_eagle mismatch for ${keyName(key)}: existing=${partition.isEagle} requested=${eagle}`
  }
}


const recoveredId = (key: PartitionKey, blockSize: number, workerId: bigint): string => `${keyText(key)} ${blockSize} ${workerId}`
