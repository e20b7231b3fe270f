import {list, record, type Json} from './json.js'

/** A LabelSelector: matchLabels and matchExpressions all hold; the empty one selects everything. */
export function selects(selector: unknown, labels: Readonly<Record<string, string>>): boolean {
  const {matchLabels, matchExpressions} = record(selector)
  return (
    Object.entries(record(matchLabels)).every(([key, value]) => labels[key] === value) &&
    list(matchExpressions).every((expression) => holds(expression, labels))
  )
}

function holds({key, operator, values}: Json, labels: Readonly<Record<string, string>>): boolean {
  const value = labels[String(key)]
  const among = value !== undefined && Array.isArray(values) && values.includes(value)
  switch (operator) {
    case 'In':
      return among
    case 'NotIn':
      return !among
    case 'Exists':
      return value !== undefined
    case 'DoesNotExist':
      return value === undefined
    default:
      return false
  }
}
