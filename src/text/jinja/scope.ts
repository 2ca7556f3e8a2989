/** Names and their values, innermost first. Bodies of loops, macros and blocks have a scope each; `if` has none. */
import { PyUndefined, type PyValue } from './values.ts'

export class Scope {
  readonly #values = new Map<string, PyValue>()
  readonly #parent: Scope | null

  constructor(parent: Scope | null) {
    this.#parent = parent
  }

  get(name: string): PyValue {
    const value = this.#values.get(name)
    if (value !== undefined) return value
    return this.#parent === null ? new PyUndefined(`'${name}' is undefined`) : this.#parent.get(name)
  }

  set(name: string, value: PyValue): void {
    this.#values.set(name, value)
  }
}
