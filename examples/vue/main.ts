import { createApp, ref } from "vue";
import { useGateway } from "./useGateway";

const Chat = {
  setup() {
    const prompt = ref("Why is the sky blue?");
    return { prompt, ...useGateway() };
  },
  template: `
    <form @submit.prevent="ask([{ role: 'user', content: prompt }])">
      <input v-model="prompt">
      <button :disabled="busy">Ask</button>
      <button type="button" :disabled="!busy" @click="stop">Stop</button>
      <p id="answer">{{ text }}</p>
      <p v-if="error" role="alert">{{ error.message }}</p>
    </form>`,
};

createApp(Chat).mount(document.body.appendChild(document.createElement("main")));
