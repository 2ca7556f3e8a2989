/** CPU time and memory of a process with all its descendants, from /proc. */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

/** The kernel's USER_HZ, which is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100

function readProc(pid: number | string, file: string): string {
  try {
    return readFileSync(join('/proc', String(pid), file), 'utf8')
  } catch {
    return ''
  }
}

/** The fields of `/proc/PID/stat` behind the name; empty when it has ended. */
function statFields(pid: number | string): string[] {
  const stat = readProc(pid, 'stat')
  return stat === '' ? [] : stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

/** The process and all its descendants. */
export function processTree(pid: number): number[] {
  const children = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    const parent = /^\d+$/.test(name) ? statFields(name)[1] : undefined
    if (parent !== undefined) children.set(Number(parent), [...children.get(Number(parent)) ?? [], Number(name)])
  }
  const found = [pid]
  for (const member of found) found.push(...children.get(member) ?? [])
  return found
}

/** User and system time of the tree; ended children are not in it. */
export const cpuSeconds = (pid: number): number =>
  processTree(pid).reduce((sum, member) => {
    const fields = statFields(member)
    return sum + (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / ticksPerSecond
  }, 0)

export const rssMiB = (pid: number): number =>
  processTree(pid).reduce((sum, member) => sum + Number(/VmRSS:\s+(\d+) kB/.exec(readProc(member, 'status'))?.[1] ?? 0) / 1024, 0)
