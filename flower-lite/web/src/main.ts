// The pages' entry: preferences first (they set the theme), then routing, keys, the stream, and the app itself.

import './styles/tokens.css';
import './styles/base.css';
import './state/prefs.svelte';
import { mount } from 'svelte';
import App from './App.svelte';
import { startKeys } from './state/keys';
import { live } from './state/live.svelte';
import { router } from './state/router.svelte';

router.start();
startKeys();
const target = document.getElementById('app');
if (target) mount(App, { target });
live.start();
