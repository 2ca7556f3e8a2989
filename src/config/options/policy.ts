/** Options of policies of one's own, and of changes while running. */
import { integerOption, maybeInteger, maybePath } from '../option.ts'
import { defaultBudgetUs } from '../../policies/policy-slot.ts'

const own = { origin: 'warmpath' as const, since: 'Warmpath 0.4' }
const cost = 'Cost of a worker'
const running = 'Changes while running'

export const policyOptions = {
  policy: maybePath({
    ...own, name: 'policy', env: ['WARMPATH_POLICY'], section: cost, defaultText: 'the built-in policy',
    help: 'JavaScript or TypeScript file whose default export chooses among the eligible workers: docs/policies.md. Read anew when it changes; one that cannot be used leaves the old one in force.',
  }),
  policyShadow: maybePath({
    ...own, name: 'policy-shadow', env: ['WARMPATH_POLICY_SHADOW'], section: cost, defaultText: 'off',
    help: 'Policy file that runs beside the one that decides, and decides nothing: how often it would choose otherwise is in the metrics and the log.',
  }),
  policyBudgetUs: integerOption(defaultBudgetUs, {
    ...own, name: 'policy-budget-us', env: ['WARMPATH_POLICY_BUDGET_US'], minimum: 1, maximum: 10_000_000, unit: 'microseconds', section: cost, needs: ['policy', 'policyShadow'],
    help: 'Longest time of a policy for one decision. Three in a row above it set the policy aside until it is loaded again.',
  }),
  adminPort: maybeInteger({
    ...own, name: 'admin-port', env: ['WARMPATH_ADMIN_PORT'], minimum: 0, maximum: 65535, section: running, defaultText: 'off',
    help: 'Serve the admin API on this port of 127.0.0.1: GET and PATCH /settings, POST /reload. 0 takes a free one.',
  }),
  adminTokenFile: maybePath({
    ...own, name: 'admin-token-file', env: ['WARMPATH_ADMIN_TOKEN_FILE'], section: running, defaultText: 'the admin API only reads', needs: ['adminPort'],
    help: 'File with the token that writes to the admin API must carry as `Authorization: Bearer`. Read with every write.',
  }),
}
