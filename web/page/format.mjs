// SPDX-License-Identifier: Apache-2.0
/** How numbers, times and names are written for people. Pure. */

/** `1:02`, `1:02:03`: seconds as a player shows them. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, '0');
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** `1:02.3`: the same to the tenth. */
export function clockTenths(seconds) {
  const tenths = Math.max(0, Math.round(seconds * 10));
  return `${clock(Math.floor(tenths / 10))}.${tenths % 10}`;
}

/** `0.4 s`, `12 s`, `3 min 20 s`: a length of time. */
export function span(seconds) {
  if (seconds < 1) return `${Math.max(0, seconds).toFixed(seconds < 0.1 ? 2 : 1)} s`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (hours) return `${hours} h ${minutes} min`;
  return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
}

/** `14:03:07` of a time in milliseconds since 1970, here. */
export function timeOfDay(ms) {
  const date = new Date(ms);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':');
}

/** The same; to the minute and after the date where that is not today's. */
export function moment(ms, now = Date.now()) {
  const [date, today] = [new Date(ms), new Date(now)];
  if (date.toDateString() === today.toDateString()) return timeOfDay(ms);
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, '0')).join('-');
  return `${day} ${timeOfDay(ms).slice(0, 5)}`;
}

/** One of something, or several. */
export function count(number, one, several = `${one}s`) {
  return `${number} ${number === 1 ? one : several}`;
}

/** As much of a session's id as tells it from others on a screen. */
export function short(id) {
  return id.slice(0, 8);
}

/** Decibels below full scale of a level from 0 to 1; -60 for silence. */
export function decibels(level) {
  return level > 0.001 ? Math.round(20 * Math.log10(level)) : -60;
}
